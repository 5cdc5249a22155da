"""A model, customers and the scores that LightGBM's own Booster.predict gave them, frozen; `make.py` made the files."""

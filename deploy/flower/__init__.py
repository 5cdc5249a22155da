"""Flower, the live view over the workers; flowerconfig.py is its settings file."""

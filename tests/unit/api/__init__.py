"""The API without its stores."""

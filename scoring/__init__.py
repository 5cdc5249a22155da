"""The scoring core: what a customer is, what a model is, and what a score means. Plain arguments in, arrays out."""

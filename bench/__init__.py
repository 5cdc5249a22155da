"""The benchmark: the product beside raw scripts that do the same work without its guarantees, on the same rows and tables."""

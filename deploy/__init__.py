"""Ways to run the product: local/ on one machine from wheels alone, flower/ the view over the workers."""

"""The `churn` command: the product for people at a terminal and for scripts, built on the HTTP client."""

"""What `churn doctor` looks at: a module for each part of a deployment, each of which yields findings."""

"""`churn top`: a live view at the terminal of queues, workers, running batches and single predictions."""

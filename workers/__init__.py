"""The workers: they claim what hints name, score it, and close it in one transaction; every one of them is also a rescuer."""

"""Hints on Celery over Redis, published in bounded time by whoever holds new work."""

"""The API over a real Postgres and a real Redis; the workers are played by the test."""

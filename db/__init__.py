"""All SQL and the migrations: one function a question, each on a connection that the caller owns."""

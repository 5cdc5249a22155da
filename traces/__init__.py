"""Traces: one story of a request, from HTTP through the ledger and the queue to the chunk and its COPY; off by default.

The code says where its steps begin and end by `traces.spans`, which does nothing until a process starts `traces.sdk`.
"""

"""Compares two models on the same rows: what differs, how sure that is, and on which rows."""

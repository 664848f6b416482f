"""Evaluating what training left: what is to be done, what has been done, and what came of it. No torch."""

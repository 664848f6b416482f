"""Answers for a file of prompts: what a row asks, and an output that can be gone on with after a kill."""

"""Answers for a file of prompts: what a row asks, and an output that can be resumed after a kill."""

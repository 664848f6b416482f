"""Faults of training and evaluation data that no engine reports."""

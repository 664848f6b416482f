"""Metrics: pure functions from text to figures. No torch, no engine."""

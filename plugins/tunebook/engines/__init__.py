"""Engines, seen from outside: which command to run, in which environment. No engine is imported."""

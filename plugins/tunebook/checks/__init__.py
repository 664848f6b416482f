"""Checks made before an engine is started: what it would find out late, or never."""

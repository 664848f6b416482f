"""Recipes and overlays: finding them, and reading them as their engine does."""

"""Long documents cut into overlapping pieces of at most so many tokens, with nothing lost."""

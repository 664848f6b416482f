"""What we know of LLaMA-Factory that its own code does not say: commands, data, caches."""

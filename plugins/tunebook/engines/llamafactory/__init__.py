"""All that we know of LLaMA-Factory and its own code cannot tell us: commands, data, caches."""

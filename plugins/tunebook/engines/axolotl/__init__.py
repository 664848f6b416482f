"""All that we know of Axolotl and its own code cannot tell us: commands, data, rows, rules, plugins."""

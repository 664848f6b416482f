"""What we know of Axolotl that its own code does not say: commands, data, rows, rules, plugins."""

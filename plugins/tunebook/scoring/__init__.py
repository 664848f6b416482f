"""From answers to figures: scores summed up with intervals, by length, on a fixed subset."""

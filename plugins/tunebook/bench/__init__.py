"""A short real training of a recipe, and what it says about speed, memory and the use of the device."""

from tunebook.bench.figures import Figures, bench_values, figures_of

__all__ = ["Figures", "bench_values", "figures_of"]

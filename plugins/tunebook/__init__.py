"""tunebook: recipes, honest metrics, preflight and reports for LLaMA-Factory and Axolotl.

Kept empty on purpose: the start-up hook imports this package in every Python process of the environment.
"""

__version__ = "0.1.0"

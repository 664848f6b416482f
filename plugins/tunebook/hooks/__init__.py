"""Code that runs inside an engine's process: the only place that may import torch or an engine.

Nothing imports this package. Engines reach it by name: LLaMA-Factory through the start-up hook, Axolotl
through `plugins:` in its YAML. Kept empty, since every Python start of the environment imports it.
"""

"""Plans how models and adapters become one model: which tensor is made of what, without torch.

The work on the tensors themselves is done by `tunebook.hooks.merge`, in an engine's environment.
"""

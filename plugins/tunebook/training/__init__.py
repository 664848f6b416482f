"""What `tunebook train` does before the engine starts."""

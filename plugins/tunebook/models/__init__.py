"""Models on disk: where one is, its checkpoints, its tensors and the contract it was trained under."""

"""Whether what a server will send to a model is what it was trained on."""

"""Whether what a server will send to a model is what training has shown it."""

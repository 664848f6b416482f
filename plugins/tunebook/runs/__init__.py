"""What a run is on this machine: its folder, its process, where it comes from, what it is doing now."""

"""What a run is doing now, told from the files it leaves and from its process; nothing is asked of it."""

from tunebook.runs.live.state import RunState, find_runs, is_running, newest_checkpoint, read_state

__all__ = ["RunState", "find_runs", "is_running", "newest_checkpoint", "read_state"]

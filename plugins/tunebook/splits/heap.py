"""One setting of the C library, without which half the time of a scan goes into page faults."""

from __future__ import annotations

import numpy as np

_BYTES = 20 << 20


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed arrays instead of handing it back to the system each time.

    glibc raises its thresholds for that (`M_MMAP_THRESHOLD`, see mallopt(3)) when a block of up to 32 MB is
    freed. The block is never touched, so it costs no memory. Elsewhere this does nothing.
    """
    np.empty(_BYTES, np.uint8)

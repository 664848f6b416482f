"""Peak speeds of GPUs."""

from __future__ import annotations

import re

# Dense bf16 with fp32 accumulation, in TFLOPS (for cards before Ampere: fp16, they have no bf16), as they are
# commonly quoted; NVIDIA's own sheets were not read for it. The first pattern that is found in the device's
# name counts.
_PEAKS: tuple[tuple[str, float], ...] = (
    (r"\bB200\b", 2250.0),
    (r"\bH200\b", 989.4),
    (r"\bGH200\b", 989.4),
    (r"\bH100 PCIe", 756.5),
    (r"\bH100\b(?! NVL)", 989.4),
    (r"\bH800\b", 989.4),
    (r"\bA100\b|\bA800\b", 312.0),
    (r"\bL40S\b", 362.0),
    (r"\bL4\b", 121.0),
    (r"\bA10G?\b", 125.0),
    (r"\bA6000\b", 154.8),
    (r"\bRTX 4090\b", 165.2),
    (r"\bRTX 3090\b", 71.0),
    (r"\bT4\b", 65.0),
    (r"\bV100\b", 125.0),
)


def peak_flops(device: str) -> float | None:
    """Return a device's peak in operations per second; None for a card that is not in the table, or a CPU.

    >>> peak_flops("NVIDIA A100-SXM4-80GB")
    312000000000000.0
    """
    found = next((peak for pattern, peak in _PEAKS if re.search(pattern, device)), None)
    return None if found is None else found * 1e12

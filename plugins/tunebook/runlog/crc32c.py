"""The checksum of TensorBoard's records, for many of one length at once.

CRC-32C (Castagnoli, RFC 3720 appendix B.4) with the mask of
https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


def _table() -> NDArray[np.uint32]:
    found = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        found = np.where(found & 1, (found >> 1) ^ np.uint32(_POLYNOMIAL), found >> 1)
    return found


def masked_crc32c(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The masked checksum of each row.

    Args:
        rows: Shape (N, bytes).

    >>> int(masked_crc32c(np.frombuffer(b"123456789", dtype=np.uint8)[None, :])[0]) == 0xC78AB0E5
    True
    """
    table = _table()
    crc = np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = np.invert(crc)
    return (((crc >> 15) | (crc << 17)) + np.uint32(_MASK)).astype(np.uint32)

"""The layers of the small embedding network, as data: sizes and names, nothing else."""

from __future__ import annotations

ARCHITECTURE = "embedding_net"
CHANNELS = 3
KERNEL = 3
FILTERS = (16, 32, 64, 128)  # of one block each: convolution, normalisation with ReLU, max pool that halves


def features(side: int) -> int:
    """How many numbers are left of a picture of side × side pixels before the last, linear layer.

    >>> features(64), features(16)
    (512, 128)
    """
    grid = side >> len(FILTERS)
    return ((grid + 1) // 2) ** 2 * FILTERS[-1]

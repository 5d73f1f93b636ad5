"""Chooses a VNI: the next free one after a start that the caller draws at random.

The range begins at 2^20, clear of what Docker (256 up, 4096 up in Swarm) and people give by hand.
"""

from __future__ import annotations

from collections.abc import Container

from kvnet.errors import VniTaken
from kvnet.rules import VNI_MAX

FIRST_VNI = 1 << 20
VNI_COUNT = VNI_MAX - FIRST_VNI + 1


def choose_vni(taken: Container[int], start: int) -> int:
    """The first VNI from `start` on (any integer, folded into the range) that is not `taken`; wraps.

    Raises:
        VniTaken: all of them are.
    """
    for step in range(VNI_COUNT):
        vni = FIRST_VNI + (start + step) % VNI_COUNT
        if vni not in taken:
            return vni
    raise VniTaken(f"all {VNI_COUNT} VNIs are in use", fix="delete networks that nobody needs: 'kvnet network prune'")

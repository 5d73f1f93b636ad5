"""Makes MAC addresses of endpoints: random, so that a reused IP address never comes with its former owner's MAC."""

from __future__ import annotations

LOCALLY_ADMINISTERED_UNICAST = 0x02
RANDOM_BYTES = 5


def mac_from(random: bytes) -> str:
    """A locally administered unicast MAC from `RANDOM_BYTES` random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random bytes; {RANDOM_BYTES} are needed")
    return bytes((LOCALLY_ADMINISTERED_UNICAST, *random)).hex(":")

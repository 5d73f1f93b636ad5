"""Whether the kernel had to refuse neighbours for want of room: one table for the whole machine, all its namespaces.

Entries of ours are permanent, and the limit does not count those. But the peers' own and the workloads' gateways are
learned by asking, so a full table cuts off hosts and workloads at random while everything of ours is as it should be.
Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# The files are in the first namespace only, which the machine's first process is in.
FOLDER = Path("/proc/1/net/stat")
TABLES = {"ipv4": "arp_cache", "ipv6": "ndisc_cache"}
REFUSED = "table_fulls"


def refused_neighbours(folder: Path = FOLDER) -> Mapping[str, int]:
    """By family, since the machine started: it is full when this grows. A family that is not told is left out."""
    found = {}
    for family, name in TABLES.items():
        try:
            head, *lines = (folder / name).read_text().splitlines()
            column = head.split().index(REFUSED)
            found[family] = sum(int(line.split()[column], 16) for line in lines)
        except (OSError, ValueError, IndexError):
            continue
    return found

"""What of a host outlives its worker: the kernel with its workloads, the disk, the clock, and the state of its links.

Nothing here runs; the faults of a step change it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.simulation.disk import Disk
from tests.unit.worker.kit import FakeHost

EPOCH = 1_800_000_000.0


@dataclass(slots=True, eq=False)
class Machine:
    """`offset_s`: what its wall clock is off. `failing`: the share of kernel calls that fail. `is_meddled`: in its
    kernel was, or may have been, changed something that its worker did not do."""

    name: str
    number: int
    host: FakeHost
    disk: Disk = field(default_factory=Disk)
    offset_s: float = 0.0
    failing: float = 0.0
    is_meddled: bool = False
    workloads: int = 0

    @classmethod
    def make(cls, name: str, number: int) -> Machine:
        return cls(name, number, FakeHost(name, ip_address(f"192.0.2.{number}")))

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.offset_s

    def start_workload(self) -> str:
        """A namespace of a new workload; no two ever have one path."""
        self.workloads += 1
        path = f"/run/netns/{self.name}-w{self.workloads}"
        self.host.add_namespace(path)
        return path

    @property
    def namespaces(self) -> list[str]:
        return sorted(path for path in self.host.tables.namespaces if path)

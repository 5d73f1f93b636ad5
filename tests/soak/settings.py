"""What a soak is asked for, and the numbers that it goes by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tests.servers.binaries import Kind

STORES = ("etcd", "consul", "zookeeper", "sqlite")
KINDS: dict[str, Kind] = {"etcd": "etcd3.5", "consul": "consul", "zookeeper": "zookeeper3.9"}
MEMBERS = ("s1", "s2", "s3")
COOL_DOWN_S = 10  # short, so that addresses come round again while something is going on
# What everything has to be settled within when nothing more happens to it: elections, sessions, retries, cool-downs.
SETTLED_WITHIN_S = 180.0
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Options:
    """`pause`: between the faults of a lane. `kinds`: only these faults (empty: all that the site allows)."""

    store: str
    seconds: float
    seed: int
    hosts: int = 3
    controllers: int = 2
    users: int = 6
    pause: tuple[float, float] = (1.0, 6.0)
    kinds: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def replay(self) -> str:
        minutes = f"{self.seconds / 60:g}"
        words = (
            f"STORE={self.store} MINUTES={minutes} SEED={self.seed} HOSTS={self.hosts} CONTROLLERS={self.controllers}"
        )
        return f"make soak {words}"

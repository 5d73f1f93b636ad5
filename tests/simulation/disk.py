"""A worker's state directory in memory: what was written is there for the next run, what was synced after a power cut.

Keeps what `worker.disk.StateDir` promises, and adds what happens to disks: full ones, and power that goes.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from kvnet.errors import StateUnusable
from worker.disk import StateDir

WRITTEN_BACK_S = 40.0  # by then a kernel has written what nobody synced


class Disk:
    """What survives its worker."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_full = False
        # Of names that were written lately and not synced: what there was before, and when that began.
        self._before: dict[str, tuple[bytes | None, float]] = {}

    def put(self, name: str, data: bytes | None, *, durable: bool) -> None:
        if durable:
            self._before.pop(name, None)
        elif self._is_safe(name):
            self._before[name] = self.files.get(name), _now()
        if data is None:
            self.files.pop(name, None)
        else:
            self.files[name] = data

    def sync(self, name: str) -> None:
        self._before.pop(name, None)

    def lose_power(self, rng: random.Random) -> None:
        """Of what was not synced, each file is as it was, as it was to be, or empty."""
        for name in [name for name in self._before if not self._is_safe(name)]:
            before, fate = self._before[name][0], rng.randrange(3)
            if fate == 0:
                if before is None:
                    self.files.pop(name, None)
                else:
                    self.files[name] = before
            elif fate == 1 and name in self.files:
                self.files[name] = b""
        self._before.clear()

    def _is_safe(self, name: str) -> bool:
        return name not in self._before or _now() - self._before[name][1] >= WRITTEN_BACK_S


def _now() -> float:
    return asyncio.get_running_loop().time()


class SimulatedDir(StateDir):
    def __init__(self, disk: Disk) -> None:
        super().__init__(Path("/simulated"), -1)
        self._disk = disk

    def close(self) -> None:
        return None

    def read(self, name: str) -> bytes | None:
        return self._disk.files.get(name)

    def write(self, name: str, data: bytes, *, durable: bool, room: int = 0) -> None:
        if self._disk.is_full:
            raise StateUnusable("simulated: no space left on device")
        self._disk.put(name, data.ljust(room), durable=durable)

    def sync(self, name: str) -> None:
        self._disk.sync(name)

    def remove(self, name: str) -> None:
        self._disk.put(name, None, durable=False)

    def names(self, folder: str) -> list[str]:
        start = f"{folder}/"
        return sorted(name.removeprefix(start) for name in self._disk.files if name.startswith(start))

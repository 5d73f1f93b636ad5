"""When another host sees a change: a process that mirrors what a worker would, and tells what it saw at which moment.

`python -m bench.seen URL PREFIX` prints `KEY NANOSECONDS` for each key that appears (by the monotonic clock, which all
processes of a machine share), until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.mirror import Mirror
from backends.open import open_store
from backends.store import Change

START_TIMEOUT_S = 30.0


class Watcher:
    """The running process; `times` says when it saw which key, in nanoseconds."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def is_ready(self) -> bool:
        return self._log.read_text().startswith("ready\n")

    @property
    def times(self) -> dict[str, int]:
        lines = [line.split() for line in self._log.read_text().splitlines()[1:]]
        return {line[0]: int(line[1]) for line in lines if len(line) == 2}


@contextlib.contextmanager
def watcher(url: str, prefix: str, log: Path) -> Iterator[Watcher]:
    """A process that watches `prefix`, in step when this is entered."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "bench.seen", url, prefix], stdout=output)
    try:
        seen = Watcher(process, log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not seen.is_ready:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the watching process did not come into step")
            time.sleep(0.02)
        yield seen
    finally:
        process.kill()
        process.wait()


def _tell(changes: Sequence[Change]) -> None:
    now = time.monotonic_ns()
    for change in changes:
        if change.entry is not None:
            print(change.key, now, flush=True)


async def _main(url: str, prefix: str) -> None:
    async with await open_store(url) as store, asyncio.TaskGroup() as group:
        mirror = Mirror(store, prefix, on_change=_tell)
        group.create_task(mirror.run())
        await mirror.until_in_step(START_TIMEOUT_S)
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))

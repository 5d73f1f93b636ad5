"""Tells plain network namespaces where to ask: `/etc/netns/<name>/resolv.conf`, which `ip netns exec` puts in place.

For namespaces under /run/netns that are attached here and reach the address. A file that is not ours is never touched;
ours bears a mark with our host's name, and goes with the last attachment. Level-triggered, so what a crash left is
cleaned up at the start; what another program changes in one of ours is put right half a minute later. An attach waits
for its file, but not for long: where it cannot be written, that is logged, and nothing else depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path

from worker.log import Log
from worker.ports import Time

FOLDER = Path("/etc/netns")
NAMESPACES = (Path("/run/netns"), Path("/var/run/netns"))
FILE = "resolv.conf"
MARK = "# Made by kvnet on host {host}, which removes it when the namespace has left its last network."
LOOK_S = 0.2
REPAIR_S = 30.0
PATIENCE_S = 1.0
MOST_BYTES = 65_536


class NamespaceFiles:
    """`wanted`: the paths of the namespaces that should have one."""

    def __init__(
        self,
        host: str,
        address: IPv4Address,
        wanted: Callable[[], frozenset[str]],
        *,
        time: Time,
        log: Log,
        resolv_conf: Path,
        folder: Path = FOLDER,
        namespaces: tuple[Path, ...] = NAMESPACES,
    ) -> None:
        self._mark = MARK.format(host=host)
        self._address = address
        self._wanted = wanted
        self._time = time
        self._log = log
        self._resolv_conf = resolv_conf
        self._folder = folder
        self._namespaces = frozenset(map(str, namespaces))
        self._told = ""
        self._done: frozenset[str] | None = None
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Until cancelled."""
        repair_at = 0.0
        while True:
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            names, now = self._names(self._wanted()), self._time.monotonic()
            if self._done is None or now >= repair_at:
                await asyncio.to_thread(self._bring_to, names)
                repair_at = now + REPAIR_S
            elif names != self._done:
                await asyncio.to_thread(self._change, names - self._done, self._done - names)
            self._done = names
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def until_written(self) -> None:
        """Return when the files are those of the namespaces that are attached now, or cannot be for the moment."""
        if self._names(self._wanted()) == self._done:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await waiter

    def _names(self, paths: frozenset[str]) -> frozenset[str]:
        places = (path.rpartition("/") for path in paths)
        return frozenset(name for folder, _, name in places if folder in self._namespaces and name.strip("."))

    def _bring_to(self, names: frozenset[str]) -> None:
        """Whatever is there now."""
        with self._failures_told():
            self._change(names, self._marked() - names)

    def _change(self, wanted: frozenset[str], unwanted: frozenset[str]) -> None:
        """What cannot be done for one namespace keeps no other from its file."""
        text = content(self._mark, self._address, _read(self._resolv_conf) or "")
        for name in unwanted:
            with self._failures_told():
                if self._is_ours(self._folder / name / FILE):
                    self._remove(name)
        for name in sorted(wanted):
            with self._failures_told():
                self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        place = self._folder / name / FILE
        if os.path.lexists(place) and not self._is_ours(place):
            return
        if _read(place) == text:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside the namespaces' folders: whatever is in those gets mounted.
        fresh = self._folder / f".{name}.kvnet"
        fresh.write_text(text)
        fresh.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
        fresh.rename(place)

    def _remove(self, name: str) -> None:
        (self._folder / name / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has another file there
            (self._folder / name).rmdir()

    def _marked(self) -> frozenset[str]:
        try:
            found: Mapping[str, Path] = {entry.name: entry / FILE for entry in self._folder.iterdir()}
        except FileNotFoundError:
            return frozenset()
        return frozenset(name for name, place in found.items() if self._is_ours(place))

    def _is_ours(self, place: Path) -> bool:
        text = None if place.is_symlink() else _read(place)
        return text is not None and text.startswith(self._mark)

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """The same only once."""
        try:
            yield
        except OSError as error:
            detail = f"{error.filename or self._folder}: {error.strerror}"
            if detail != self._told:
                self._log.warning("namespace-file", detail=detail)
            self._told = detail


def content(mark: str, address: IPv4Address, hosts: str) -> str:
    """`hosts`: the host's own. Its search domains stay; a name without a dot is asked for as it is first."""
    lines = [line.split() for line in hosts.splitlines()]
    searched = [line[1:] for line in lines if len(line) > 1 and line[0] in ("search", "domain")]
    search = [f"search {' '.join(searched[-1])}"] if searched else []  # the last one counts: resolv.conf(5)
    return "\n".join([mark, f"nameserver {address}", *search, "options ndots:0", ""])


def _read(place: Path) -> str | None:
    """None where there is no plain file."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, errors="replace") as file:
        return file.read(MOST_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None

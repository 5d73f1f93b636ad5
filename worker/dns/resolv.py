"""Tells plain network namespaces where to ask: `/etc/netns/<name>/resolv.conf`, which `ip netns exec` puts in place.

For namespaces under /run/netns that are attached here and reach the address. A file that is not ours is never touched;
ours bears a mark with our host's name, and goes with the last attachment. Level-triggered, so what a crash left is
cleaned up at the start; what another program changes in one of ours is put right half a minute later. Nothing depends
on it: where it cannot be written, that is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Mapping
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
        self._namespaces = namespaces
        self._told = ""

    async def run(self) -> None:
        """Until cancelled."""
        done: frozenset[str] | None = None
        repair_at = 0.0
        while True:
            names, now = self._names(self._wanted()), self._time.monotonic()
            if names != done or now >= repair_at:
                await asyncio.to_thread(self._bring_to, names)
                done, repair_at = names, now + REPAIR_S
            await self._time.sleep(LOOK_S)

    def _names(self, paths: frozenset[str]) -> frozenset[str]:
        places = (Path(path) for path in paths)
        return frozenset(place.name for place in places if place.parent in self._namespaces)

    def _bring_to(self, names: frozenset[str]) -> None:
        text = content(self._mark, self._address, _read(self._resolv_conf) or "")
        try:
            for name in self._marked() - names:
                self._remove(name)
            for name in sorted(names):
                self._write(name, text)
        except OSError as error:
            self._tell(f"{error.filename or self._folder}: {error.strerror}")

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

    def _tell(self, detail: str) -> None:
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

"""One server process of a cluster: started, stopped, killed, frozen, wiped.

It dies with the process that started it, whatever happens to that one. Its ports, address and folder stay its own over
every restart. Never removes anything outside its own folder.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from lab import processes
from lab.processes import Process
from tests.servers.family import Family, ServerFailed
from tests.servers.places import NoAnswer, Place

READY_SECONDS = 60.0  # a JVM on a busy machine; usually 1 to 3
FREEZE_SECONDS = 5.0
STOP_SECONDS = 2.0
POLL_SECONDS = 0.02
LAST_LINES = 12


class Member:
    """Made by `Cluster`, which starts all of them together."""

    def __init__(self, family: Family, index: int) -> None:
        self._family = family
        self._site = family.site
        self.index = index
        self.name = self._site.name(index)
        self.process: Process | None = None
        self.is_frozen = False

    @property
    def place(self) -> Place:
        return self._site.places[self.index]

    @property
    def endpoint(self) -> str:
        """`host:port` for clients."""
        return self._site.at(self.index, "client")

    @property
    def log(self) -> Path:
        return self._site.folder(self.index) / f"{self.name}.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_running

    @property
    def pid(self) -> int:
        return self._running().pid

    async def start(self) -> None:
        """Start the process; `until_ready` waits for the server in it. A wiped member comes back as a new one.

        Raises:
            ServerFailed: it runs already, or the others do not let it in.
        """
        if self.is_running:
            raise ServerFailed(f"{self.name} is running already")
        joins = await self._come_back()
        launch = self._family.launch(self.index, joins=joins)
        self.process = await processes.start(
            self.name,
            launch.command,
            logs=self._site.folder(self.index),
            netns=self.place.netns,
            environment=launch.environment,
        )
        self.is_frozen = False
        self._site.answering.add(self.index)

    async def until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it serves clients; in a cluster that takes a majority.

        Raises:
            ServerFailed: not in time, or it ended; with its last words.
        """
        told = "nothing yet"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if not self.is_running:
                        raise ServerFailed(f"{self.name} is not running: {self.last_words()}")
                    try:
                        if await self._family.is_ready(self.index):
                            return
                        told = "it answers, but is no part of a working cluster"
                    except NoAnswer as error:
                        told = str(error)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise ServerFailed(
                f"{self.name} is not ready after {seconds:g} s ({told}). Its last words: {self.last_words()}"
            ) from None

    async def stop(self) -> None:
        """SIGTERM and, if that is not enough, SIGKILL: etcd would wait 5 s for someone to hand the lead to."""
        if self.is_running:
            process = self._running()
            if self.is_frozen:
                await self.thaw()
            process.signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.child.wait()
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL, as a crash would. Its data stays, as far as it was on disk."""
        self._site.answering.discard(self.index)
        self.is_frozen = False
        if self.process is not None:
            await self.process.kill()

    async def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns when every thread has stopped.

        Raises:
            ServerFailed: it is not running.
        """
        process = self._running()
        process.signal(signal.SIGSTOP)
        self.is_frozen = True
        self._site.answering.discard(self.index)
        with suppress(TimeoutError):
            async with asyncio.timeout(FREEZE_SECONDS):
                while not _all_threads_stopped(process.pid):  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0.001)

    async def thaw(self) -> None:
        """SIGCONT.

        Raises:
            ServerFailed: it is not running.
        """
        self._running().signal(signal.SIGCONT)
        self.is_frozen = False
        self._site.answering.add(self.index)

    async def restart(self, *, until_ready: bool = True) -> None:
        """Stop it if it runs, start it again on the same data and ports."""
        await self.stop()
        await self.start()
        if until_ready:
            await self.until_ready()

    async def wipe(self) -> None:
        """Kill it and remove its data; `start` brings it back as a new member of the same cluster."""
        await self.kill()
        shutil.rmtree(self._site.data(self.index), ignore_errors=True)
        self._site.wiped.add(self.index)

    def last_words(self, lines: int = LAST_LINES) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(it said nothing)"

    async def _come_back(self) -> bool:
        """Whether it comes without data to a cluster that lives."""
        site = self._site
        site.folder(self.index).mkdir(parents=True, exist_ok=True)
        if len(site.wiped) == len(site.places):  # nothing is left: the first to start begins a new cluster
            site.generation += 1
            site.wiped.clear()
        if self.index not in site.wiped:
            return False
        await self._family.admit(self.index)
        site.wiped.discard(self.index)
        return True

    def _running(self) -> Process:
        if self.process is None or not self.process.is_running:
            raise ServerFailed(f"{self.name} is not running: {self.last_words()}")
        return self.process


def _all_threads_stopped(pid: int) -> bool:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread ended meanwhile
            if (task / "stat").read_text().rpartition(")")[2].split()[0] != "T":
                return False
    return True

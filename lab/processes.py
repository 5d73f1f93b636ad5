"""Starts the lab's processes (controllers, workers, workloads), keeps their logs, and ends them for certain.

A child dies with its parent (PR_SET_PDEATHSIG) whatever happens to us. Never leaves a process behind. What is started
inside another process's namespaces (`inside`) has `nsenter` between us and it: signals go to the program itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kvnet.errors import Unfit
from lab.enter import PR_SET_PDEATHSIG

STOP_SECONDS = 5.0
POLL_SECONDS = 0.002
SHARED = ("--mount", "--uts", "--net", "--pid")  # what `lab.holder` has to itself
KVNET = (sys.executable, "-m", "cli.main")
ACTIVATED = Path(__file__).with_name("activated.py")
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _mortal(command: Sequence[str]) -> tuple[list[str], Callable[[], None] | None]:
    """The command line that dies with us, and what else the child must run before it.

    Nothing, where util-linux has `setpriv`: Python code between fork and exec crashes now and then in a process with
    many threads (gRPC's), and the child is then gone without a word.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(command), _die_with_parent
    return [setpriv, "--pdeathsig", "KILL", "--", *command], None


@dataclass(slots=True)
class Process:
    """A running child. `log` is the file that holds its stdout and stderr; `inner`: the program, where it is not it."""

    name: str
    log: Path
    child: asyncio.subprocess.Process = field(repr=False)
    inner: int | None = None

    @property
    def pid(self) -> int:
        return self.child.pid if self.inner is None else self.inner

    @property
    def is_running(self) -> bool:
        return self.child.returncode is None

    def last_words(self, lines: int = 8) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def require_running(self) -> None:
        """Raises: Unfit with its last words, if it has ended."""
        if not self.is_running:
            raise Unfit(f"{self.name} ended with status {self.child.returncode}: {self.last_words()}")

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL after a bound."""
        await self._end(signal.SIGTERM, seconds)

    def signal(self, number: int) -> None:
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _end(self, number: int, seconds: float = STOP_SECONDS) -> None:
        if self.is_running:
            self.signal(number)
            try:
                async with asyncio.timeout(seconds):
                    await self.child.wait()
            except TimeoutError:
                self.child.kill()
                await self.child.wait()


async def start(
    name: str,
    command: Sequence[str],
    *,
    logs: Path,
    netns: Path | None = None,
    inside: int | None = None,
    forks: bool = False,
    listening: tuple[int, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start `command`; its log is appended to.

    Inside the network namespace `netns`, or in all namespaces of the process `inside`, if one is given. `forks`: the
    program is the only child of what is started, as with `unshare --fork`. `listening`: a socket that it is
    given, and its name.
    """
    if listening is not None:
        command = [sys.executable, "-I", "-S", str(ACTIVATED), *map(str, listening), *command]
    if inside is not None:
        # nsenter forks there, and its child must not outlive it.
        command = [_nsenter(), f"--target={inside}", *SHARED, "--", *_mortal(command)[0]]
    if netns is not None:
        command = [_nsenter(), f"--net={netns}", "--", *command]
    command, before = _mortal(command)
    path = logs / f"{name}.log"
    with path.open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "KVNET_LOG_FORMAT": "human", **(environment or {})},
            preexec_fn=before,
            pass_fds=() if listening is None else (listening[0],),
            start_new_session=True,  # Ctrl-C is for the one who started us all; it ends the others in order
        )
    return Process(name, path, child, await _only_child(child) if forks or inside is not None else None)


def _nsenter() -> str:
    nsenter = shutil.which("nsenter")
    if nsenter is None:
        raise Unfit("there is no 'nsenter' on this machine", fix="install util-linux")
    return nsenter


async def _only_child(parent: asyncio.subprocess.Process) -> int | None:
    """The program that nsenter has started, as soon as it has; None if that ended before it was seen."""
    async with asyncio.timeout(STOP_SECONDS):
        while parent.returncode is None:
            if children := _children(parent.pid):
                return children[0]
            await asyncio.sleep(POLL_SECONDS)
    return None


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []

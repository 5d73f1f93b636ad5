"""Shells that stay open on the machines of a world: variables and folders of one command are there for the next.

A command is read from a file, so here-documents, quotes and several lines mean what they mean to a user. It has no
terminal and nothing on its stdin. Every command is bounded in time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 1 << 24
END_SECONDS = 3.0


class TooSlow(Exception):
    """A command did not end in time; with what it had printed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    lines: list[str]
    status: int


@dataclass(slots=True)
class Shell:
    """`enter`: the command line that leads to the machine. `folder`: where commands start, and are kept."""

    enter: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    child: asyncio.subprocess.Process | None = None
    count: int = 0
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self, command: str, seconds: float) -> Outcome:
        """
        Raises:
            TooSlow: it does not end; the shell is gone then.
        """
        if self.child is None:
            self.child = await self._start("bash", "--norc", "--noprofile")
            assert self.child.stdin is not None
            self.child.stdin.write(f"cd {self.folder}\n".encode())  # entering a mount namespace leads to /
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        mark = f"--{secrets.token_hex(8)}--"
        script = self._script(command)
        self.child.stdin.write(
            f". {script} </dev/null 2>&1; status=$?; printf '%s%d\\n' '{mark}' $status; (exit $status)\n".encode()
        )
        said = b""
        try:
            async with asyncio.timeout(seconds):
                while mark.encode() not in said or not said.endswith(b"\n"):
                    piece = await self.child.stdout.read(65536)
                    if not piece:
                        return Outcome(_lines(said), await self.child.wait())
                    said += piece
        except TimeoutError:
            raise TooSlow(f"no end within {seconds:g} s: {said.decode(errors='replace')}") from None
        said, _, status = said.rpartition(mark.encode())
        return Outcome(_lines(said), int(status))

    async def start(self, command: str) -> Path:
        """In the background, until the page ends; returns the file that it prints into."""
        script = self._script(command)
        log = script.with_suffix(".log")
        with log.open("wb") as file:
            child = await self._start(
                "bash", "--norc", "--noprofile", "-c", f"cd {self.folder}; . {script} 2>&1", out=file.fileno()
            )
        self.running.append(child)
        return log

    async def close(self) -> None:
        for child in [*self.running, *([self.child] if self.child else [])]:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
        for child in [*self.running, *([self.child] if self.child else [])]:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await child.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        self.child, self.running = None, []

    def _script(self, command: str) -> Path:
        self.count += 1
        script = self.folder.parent / f"{self.folder.name}-{self.count}.sh"
        script.write_text(command + "\n")
        return script

    async def _start(self, *words: str, out: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.enter,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.environment),
            start_new_session=True,
            limit=LIMIT,
        )


def _lines(said: bytes) -> list[str]:
    lines = [line.rstrip() for line in said.decode(errors="replace").expandtabs().splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines

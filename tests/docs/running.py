"""Runs a page: its files are put in place, its commands are typed, and what is printed is held against the page.

A command that fails must say so on the page (`Error` at the start of a line, or `fails` on the block). Attributes of a
block: `background` (its commands go on until the page ends, and must print what is shown), `until` (typed again until
the output is the one shown, for what takes a moment), `fails`, `seconds=60`.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ELISION, BadPage, Block, Command, Page
from tests.docs.shells import Outcome, TooSlow
from tests.docs.words import Known, begins_with, differs
from tests.docs.worlds import Stage, made, open_stage

COMMAND_SECONDS = 30.0
SOON_SECONDS = 15.0
POLL_SECONDS = 0.2
_FAILURE = re.compile(
    r"^(?:\w[\w ./-]*: )?(?:[Ee]rror\b|ERROR\b|Usage:)|bad address|100% packet loss|command not found"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the page and the run. `printed`: with the page's own ids where it has some; None: not to be pasted."""

    page: str
    command: Command
    printed: list[str] | None
    why: str = ""

    def __str__(self) -> str:
        shown = "\n".join(f"    - {line}" for line in self.command.output)
        got = "\n".join(f"    + {line}" for line in self.printed or [])
        prompt = f"{self.command.room}$ {self.command.text}"
        return "\n".join(
            filter(None, [f"{self.page}:{self.command.line}: {prompt}", f"    {self.why}" * bool(self.why), shown, got])
        )


async def perform(page: Page, folder: Path) -> list[Difference]:
    """The whole page, each scene in a world of its own.

    Raises:
        BadPage: the page cannot be run as it is.
        Unfit: a world cannot be made here.
    """
    found: list[Difference] = []
    for number, (world, blocks) in enumerate(page.scenes()):
        async with open_stage(world, made(folder / str(number))) as stage:
            found += await run(page, blocks, stage)
    return found


async def run(page: Page, blocks: Sequence[Block], stage: Stage) -> list[Difference]:
    """Everything in which page and run differ; it stops at a command that does not end.

    Raises:
        BadPage: the page cannot be run as it is.
    """
    known = Known()
    found: list[Difference] = []
    for block in blocks:
        if "file" in block.attributes:
            _put(block, stage, known)
            continue
        for command in block.commands():
            difference = await _run(page, block, command, stage, known)
            if difference is not None:
                found.append(difference)
                if difference.printed is None:
                    return found
    return found


async def _run(page: Page, block: Block, command: Command, stage: Stage, known: Known) -> Difference | None:
    typed = known.typed(command.text)
    try:
        if typed.startswith("systemctl "):
            await _systemctl(command.room, shlex.split(typed)[1:], stage)
            return None
        if "background" in block.attributes:
            return await _background(page, command, typed, stage, known)
        done = await _typed(block, command, typed, stage, known)
    except TooSlow as error:
        return Difference(page.name, command, None, str(error))
    if differs(command.output, done.lines, known):
        return Difference(page.name, command, [known.pasted(line) for line in done.lines])
    says_so = "fails" in block.attributes or any(_FAILURE.search(line) for line in command.output)
    if done.status and not says_so:
        return Difference(
            page.name, command, done.lines, f"it failed with status {done.status}, and the page does not say so"
        )
    if not done.status and "|" not in typed and any(line.startswith("Error") for line in command.output):
        return Difference(page.name, command, done.lines, "it did not fail, and the page says so")
    return None


async def _typed(block: Block, command: Command, typed: str, stage: Stage, known: Known) -> Outcome:
    seconds = float(block.attributes.get("seconds", COMMAND_SECONDS))
    shell = stage.shell(command.room)
    end = asyncio.get_running_loop().time() + float(block.attributes.get("seconds", SOON_SECONDS))
    while True:
        done = await shell.run(typed, seconds)
        is_late = asyncio.get_running_loop().time() > end
        if "until" not in block.attributes or is_late or not differs(command.output, done.lines, known):
            return done
        await asyncio.sleep(POLL_SECONDS)


async def _background(page: Page, command: Command, typed: str, stage: Stage, known: Known) -> Difference | None:
    log = await stage.shell(command.room).start(typed)
    end = asyncio.get_running_loop().time() + SOON_SECONDS
    while True:
        lines = log.read_text(errors="replace").expandtabs().splitlines()
        if begins_with(command.output, lines, known):
            return None
        if asyncio.get_running_loop().time() > end:
            return Difference(page.name, command, [known.pasted(line) for line in lines])
        await asyncio.sleep(POLL_SECONDS)


async def _systemctl(room: str, words: list[str], stage: Stage) -> None:
    await stage.room(room).systemctl(words)
    if words[0] in ("poweroff", "reboot"):
        await stage.forget(room)


def _put(block: Block, stage: Stage, known: Known) -> None:
    """A file of the page: absolute, or where the room's shell is; on every room named, or where the operator sits."""
    for name in block.attributes.get("room", "").split(","):
        path = block.attributes["file"]
        room = stage.room(name)
        shell = stage.shell(name)
        target = room.root / path.lstrip("/") if path.startswith("/") else shell.folder / path
        if not path:
            raise BadPage(f"line {block.line}: file= has no name")
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text("".join(known.typed(line) + "\n" for line in block.lines))


def rewritten(page: Page, differences: list[Difference]) -> str:
    """The page with what was printed in place of what differed."""
    lines = list(page.lines)
    indents = {n: b.indent for b in page.blocks for n in range(b.line, b.line + len(b.lines) + 2)}
    for difference in sorted(differences, key=lambda d: -d.command.line):
        command = difference.command
        if difference.printed is None or any(ELISION in line for line in command.output):
            continue  # what was shortened by hand is mended by hand
        after = command.line - 1 + len(command.text.split("\n"))
        start = command.output_line - 1 if command.output_line else after
        pad = " " * indents.get(command.line, 0)
        lines[start : start + len(command.output)] = [(pad + line).rstrip() for line in difference.printed]
    return "\n".join(lines) + "\n"

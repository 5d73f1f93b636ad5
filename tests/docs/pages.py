"""Reads the pages of the documentation: which world a page needs, its fenced blocks, its commands, its links.

Pure: text in, data out. What a block means is decided here and nowhere else; runs nothing and writes nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
ELISION = "..."

_FENCE = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})\s*(?P<info>[^`]*)$")
_WORLD = re.compile(r"^<!--\s*world:\s*(?P<words>.*?)\s*-->$")
_PROMPT = re.compile(r"^(?:(?P<room>[a-z][a-z0-9]*)[$#]|\$) (?P<command>\S.*)$")
_HEADING = re.compile(r"^#{1,6}\s+(?P<text>.*?)\s*#*$")
_LINK = re.compile(
    r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)"
)
_CODE = re.compile(r"(`+)(?P<code>.+?)(?<!`)\1(?!`)")


class BadPage(Exception):
    """The page cannot be understood; says where and why."""


@dataclass(frozen=True, slots=True)
class World:
    """`kind` and what goes with it, as in `<!-- world: lab hosts=2 outside -->`."""

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)

    def has(self, option: str) -> bool:
        return option in self.options


@dataclass(slots=True)
class Command:
    """One command and what is printed after it; `line` is the first of its own, counted from 1.

    `room`: the machine whose prompt it has; "" is where the operator sits. `output`: lines as they stand on the page,
    from `output_line` on.
    """

    line: int
    room: str
    text: str
    output_line: int = 0
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its fence. `attributes`: what follows the language, `no-run="why"`."""

    line: int
    language: str
    attributes: Mapping[str, str]
    lines: tuple[str, ...]
    indent: int = 0

    @property
    def is_console(self) -> bool:
        return self.language == "console"

    @property
    def why_not(self) -> str | None:
        return self.attributes.get("no-run")

    def commands(self) -> list[Command]:
        """
        Raises:
            BadPage: it prints before anything was typed.
        """
        found: list[Command] = []
        is_open = False
        for number, line in enumerate(self.lines, self.line + 1):
            prompt = _PROMPT.match(line)
            if is_open and not prompt:
                found[-1].text += "\n" + line.removeprefix("> ")
            elif prompt:
                found.append(Command(number, prompt["room"] or "", prompt["command"]))
            elif found:
                found[-1].output_line = found[-1].output_line or number
                found[-1].output.append(line)
                continue
            elif line.strip():
                raise BadPage(f"line {number}: there is output before the first command: {line}")
            is_open = bool(found) and _goes_on(found[-1].text)
        for command in found:
            while command.output and not command.output[-1].strip():
                command.output.pop()
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """`worlds`: by the line that names one; what follows runs in it, up to the next."""

    path: Path
    lines: tuple[str, ...]
    worlds: tuple[tuple[int, World], ...]
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(CHECKOUT)) if self.path.is_relative_to(CHECKOUT) else str(self.path)

    def runs(self) -> list[Block]:
        """Blocks that do something in a world: commands, and files that are put there."""
        return [b for b in self.blocks if b.why_not is None and (b.is_console or "file" in b.attributes)]

    def scenes(self) -> list[tuple[World, list[Block]]]:
        """What runs, world by world.

        Raises:
            BadPage: something runs before a world is named.
        """
        found: dict[int, list[Block]] = {}
        for block in self.runs():
            before = [line for line, _ in self.worlds if line < block.line]
            if not before:
                raise BadPage(f"line {block.line}: the page does not say which world its commands run in")
            found.setdefault(before[-1], []).append(block)
        return [(world, found[line]) for line, world in self.worlds if line in found]

    def prose(self) -> Iterator[tuple[int, str]]:
        """Lines outside fenced blocks, with their numbers."""
        inside = {n for b in self.blocks for n in range(b.line, b.line + len(b.lines) + 2)}
        yield from ((n, line) for n, line in enumerate(self.lines, 1) if n not in inside)

    def links(self) -> Iterator[tuple[int, str]]:
        """Targets of links and images."""
        for number, line in self.prose():
            bare = _CODE.sub(lambda code: "x" * len(code[0]), line)
            for link in _LINK.finditer(bare):
                yield number, line[slice(*link.span("target" if link["target"] else "image"))]

    def code(self) -> Iterator[tuple[int, str]]:
        """What stands between backticks in the prose."""
        for number, line in self.prose():
            yield from ((number, code["code"].strip()) for code in _CODE.finditer(line))

    def anchors(self) -> set[str]:
        """As GitHub makes them of headings."""
        found: set[str] = set()
        for _, line in self.prose():
            if heading := _HEADING.match(line):
                slug = _slug(heading["text"])
                number = 0
                while (name := f"{slug}-{number}" if number else slug) in found:
                    number += 1
                found.add(name)
            found.update(re.findall(r'<a (?:id|name)="([^"]+)"', line))
        return found


def read(path: Path) -> Page:
    """
    Raises:
        BadPage: a fence is never closed, or what follows one cannot be read.
    """
    lines = tuple(path.read_text().splitlines())
    worlds = [(n, _world(said["words"])) for n, line in enumerate(lines, 1) if (said := _WORLD.match(line))]
    return Page(path, lines, tuple(worlds), tuple(_blocks(lines)))


def pages() -> list[Path]:
    """Every page that the tests look at; decisions are history and only have their links looked at."""
    found = sorted(p for p in DOCS.rglob("*.md") if "decisions" not in p.parts)
    return [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *found]


def _blocks(lines: tuple[str, ...]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = number + 1
        while end < len(lines) and not lines[end].strip().startswith(opening["fence"]):
            end += 1
        if end == len(lines):
            raise BadPage(f"line {number + 1}: the block is never closed")
        indent = len(opening["indent"])
        language, attributes = _info(opening["info"], number + 1)
        yield Block(number + 1, language, attributes, tuple(line[indent:] for line in lines[number + 1 : end]), indent)
        number = end + 1


def _info(text: str, number: int) -> tuple[str, dict[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadPage(f"line {number}: {text!r}: {error}") from None
    if not words or "=" in words[0]:
        return "", {}
    return words[0], {name: value for name, _, value in (word.partition("=") for word in words[1:])}


def _world(text: str) -> World:
    kind, *words = text.split()
    return World(kind, {name: value for name, _, value in (word.partition("=") for word in words)})


def _goes_on(text: str) -> bool:
    """Whether a shell would wait for another line: a backslash at the end, an open quote, a here-document."""
    if text.endswith("\\"):
        return True
    if here := re.search(r"<<-?\s*(['\"]?)(\w+)\1", text):
        return here[2] not in (line.strip() for line in text.split("\n")[1:])
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"[^\w\- ]", "", text.replace("`", "").lower())
    return text.replace(" ", "-")

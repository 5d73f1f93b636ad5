"""What can be said of a page without running it: links, options of commands, paths of the API, syntax of files.

Everything is held against the product itself: the click tree, `docs/openapi.json`, the pages' own headings.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import yaml

from cli.main import cli
from tests.docs.pages import CHECKOUT, DOCS, BadPage, Block, Page, read
from tests.docs.worlds import require

LANGUAGES = {"console", "json", "yaml", "toml", "ini", "python", "text", "promql", "sh", "hcl"}
_PLACEHOLDER = re.compile(r"^[A-Z][A-Z0-9_|.=/:\[\]-]*$|\.\.\.|^[<\[(|]|^\W+$|…")
_WORDS = re.compile(r"^(?:sudo |[A-Z_]+=\S+ )*kvnet(?: |$)")
_TEST = re.compile(r"^tests/[\w/.-]+(?:::\w+)?$")
_PATH = re.compile(r"/v1/[\w{}$/.:<>%~-]*")
_END = re.compile(r"\s(?:#|\||&&|;|>|&|2>)\s?.*$|;.*$|\)$")
Fault = tuple[int, str]


def faults(page: Page) -> list[Fault]:
    """Everything that is wrong with the page, by line."""
    found: list[Fault] = []
    for number, world in page.worlds:
        try:
            require(world)
        except BadPage as error:
            found.append((number, str(error)))
    try:
        page.scenes()
    except BadPage as error:
        found.append((1, str(error)))
    for block in page.blocks:
        found += _of_block(block)
    for number, text in page.code():
        if _WORDS.match(text):
            found += ((number, why) for why in command_faults(text))
        elif _TEST.match(text) and not _is_there(text):
            found.append((number, f"there is no {text}"))
    found += _of_links(page)
    return sorted(found)


def unrun(page: Page) -> list[tuple[int, str]]:
    """Console blocks that no test runs, and why."""
    return [
        (block.line, block.why_not or "") for block in page.blocks if block.is_console and block.why_not is not None
    ]


def _is_there(name: str) -> bool:
    """A test, by its file or folder and, after `::`, its function."""
    path, _, function = name.partition("::")
    file = CHECKOUT / path
    return file.exists() and (not function or f"def {function}(" in file.read_text())


def _of_block(block: Block) -> Iterator[Fault]:
    if block.language not in LANGUAGES:
        yield block.line, f"what is in the block? (`{block.language}`; one of {', '.join(sorted(LANGUAGES))})"
        return
    text = "\n".join(block.lines)
    if block.why_not is not None and not block.why_not:
        yield block.line, "no-run says why"
    if block.is_console:
        yield from _of_console(block)
    elif block.language in ("text", "sh"):
        for number, line in enumerate(block.lines, block.line + 1):
            if re.match(r"^(?:h\d)?[$#] \S", line):
                yield number, "a command: make it a console block"
            if block.language == "sh" and _WORDS.match(line):
                yield from ((number, why) for why in command_faults(line))
    else:
        try:
            _parse(block.language, text)
        except (ValueError, SyntaxError, yaml.YAMLError, configparser.Error) as error:
            yield block.line, f"it is no {block.language}: {error}"


def _of_console(block: Block) -> Iterator[Fault]:
    try:
        commands = block.commands()
    except BadPage as error:
        yield block.line, str(error)
        return
    for command in commands:
        if _WORDS.match(command.text):
            yield from ((command.line, why) for why in command_faults(command.text))
        if "curl" in command.text:
            for path in _PATH.findall(command.text):
                if not is_path(path.partition("?")[0]):
                    yield command.line, f"the API has no {path}"


def _parse(language: str, text: str) -> None:
    if language == "json":
        for piece in text.split("\n\n") if _is_many(text) else [text]:
            json.loads(piece)
    elif language == "yaml":
        list(yaml.safe_load_all(text))
    elif language == "toml":
        tomllib.loads(text)
    elif language == "ini":
        configparser.RawConfigParser(strict=False, allow_no_value=True).read_string(
            text if text.lstrip().startswith(("[", "#")) and "[" in text else f"[file]\n{text}"
        )
    elif language == "python":
        compile(text, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _is_many(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def command_faults(line: str) -> list[str]:
    """What of a `kvnet` command line does not exist."""
    line = _END.sub("", line.replace("\\\n", " ").split("\n")[0])
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    while words and words[0] != "kvnet":
        words.pop(0)
    return list(_walk(cli, words[1:], "kvnet", [cli]))


def _walk(command: click.Command, words: Sequence[str], name: str, above: list[click.Command]) -> Iterator[str]:
    is_value = False
    for number, word in enumerate(words):
        if word == "...":
            return
        if is_value:
            is_value = False
        elif word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            for option in word.strip("[]").split("|"):
                if not _has_option(above, option.partition("=")[0].rstrip("].,")):
                    yield f"'{name}' has no option {option}"
            is_value = isinstance(command, click.Group) and "=" not in word and _takes_value(above, word)
        elif isinstance(command, click.Group):
            for part in word.split("|"):
                if not part or _PLACEHOLDER.search(part):
                    continue
                inner = command.get_command(click.Context(command), part)
                if inner is None:
                    yield f"'{name}' has no command {part}"
                    return
                if part == word:
                    yield from _walk(inner, words[number + 1 :], f"{name} {part}", [*above, inner])
                    return
            if "|" not in word and not _PLACEHOLDER.search(word):
                return


def _takes_value(commands: Sequence[click.Command], option: str) -> bool:
    options = (p for command in commands for p in command.params if isinstance(p, click.Option) and option in p.opts)
    return any(not p.is_flag and not p.count for p in options)


def _has_option(commands: Sequence[click.Command], option: str) -> bool:
    if option in ("--help", "-h", "--") or _PLACEHOLDER.search(option.lstrip("-")):
        return True
    known = {name for command in commands for p in command.params for name in (*p.opts, *p.secondary_opts)}
    if option in known or option.startswith("--"):
        return option in known
    return option[:2] in known or all(f"-{letter}" in known for letter in option[1:])


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], ...]:
    paths = json.loads((DOCS / "openapi.json").read_text())["paths"]
    return tuple(re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path)) + "/?$") for path in paths)


def is_path(path: str) -> bool:
    """Whether the API has it; the store's keys are paths of any depth."""
    return path.startswith("/v1/store") or any(pattern.match(path.rstrip(".,:")) for pattern in _patterns())


def _of_links(page: Page) -> Iterator[Fault]:
    for number, target in page.links():
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if not path.exists():
            yield number, f"{target} is not there"
        elif not path.is_relative_to(CHECKOUT):
            yield number, f"{target} leads out of the project"
        elif parts.fragment and path.suffix == ".md" and parts.fragment not in _anchors(path):
            yield number, f"{target}: there is no such heading"


@lru_cache(maxsize=256)
def _anchors(path: Path) -> frozenset[str]:
    return frozenset(read(path).anchors())

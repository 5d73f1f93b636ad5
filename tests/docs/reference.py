"""Writes the reference from the product itself: `python -m tests.docs.reference`; a test keeps it in step.

The click tree, the OpenAPI document, the classes of errors with the places that raise them, the key layout. What only
a person can say (what a key is for, what a condition means) stands in `said.py`, and a test asks that nothing of the
product is missing there. Pure but for the reading of sources; writes only below `docs/reference`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from cli.main import cli
from kvnet import keys
from tests.docs.pages import CHECKOUT, DOCS
from tests.docs.said import CODES_BY_CALL, CONDITIONS, FILES, FIXES, INTERNAL, INTRO, KEYS, REASONS, VARIABLES

FOLDER = DOCS / "reference"
PACKAGES = ("kvnet", "backends", "datapath", "controller", "worker", "lab", "cli")
NOTE = "<!-- Made by `python -m tests.docs.reference`; change the product or tests/docs/said.py, and run it again. -->"
WIDTH = 110
CODE = re.compile(r"^[a-z]+(?:-[a-z0-9]+)+$")
HELP = ("-h, --help", "--help")
METHODS = ("get", "post", "patch", "put", "delete")


def written() -> dict[Path, str]:
    """Every page of the reference as it should be."""
    makers: dict[str, Callable[[], str]] = {
        "cli.md": cli_page,
        "api.md": api_page,
        "errors.md": errors_page,
        "keys.md": keys_page,
        "configuration.md": configuration_page,
    }
    return {FOLDER / name: maker() for name, maker in makers.items()}


# -- the command line


def cli_page() -> str:
    lines = [
        "# Command line: every command and option",
        NOTE,
        INTRO["cli"],
    ]
    for path, command in commands():
        lines.append(f"## {path}")
        context = _context(path, command)
        lines.append(f"```text\n{_usage(command, context)}\n```")
        if text := inspect.cleandoc(command.help or ""):
            lines.append(_paragraphs(text))
        if table := _options(command, context):
            lines.append(table)
        if isinstance(command, click.Group) and path != "kvnet":
            names = (f"[`{name}`](#{f'{path} {name}'.replace(' ', '-')})" for name in command.list_commands(context))
            lines.append("Commands: " + ", ".join(names) + ".")
    return _page(lines)


def commands(command: click.Command = cli, path: str = "kvnet") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, f"{path} {name}")


def _context(path: str, command: click.Command) -> click.Context:
    return click.Context(command, info_name=path)


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _options(command: click.Command, context: click.Context) -> str:
    rows = [
        record for p in command.get_params(context) if (record := p.get_help_record(context)) and record[0] not in HELP
    ]
    if not rows:
        return ""
    return _table(("option", ""), ((f"`{_bar(name)}`", _cell(text)) for name, text in rows))


def _paragraphs(text: str) -> str:
    """Help as Markdown: what was kept as typed is a block."""
    parts = []
    for part in text.replace("\f", "").split("\n\n"):
        if part.startswith("\b"):
            parts.append("```text\n" + part.removeprefix("\b").strip("\n") + "\n```")
        else:
            parts.append(_escaped(" ".join(part.split())))
    return "\n\n".join(parts)


# -- the API


def api_page() -> str:
    document = json.loads((DOCS / "openapi.json").read_text())
    lines = [
        "# HTTP API: every operation",
        NOTE,
        INTRO["api"],
    ]
    for tag in document["tags"]:
        lines += [f"## {tag['name'].capitalize()}", tag["description"]]
        for path, method, operation in _operations(document, tag["name"]):
            lines += _operation(path, method, operation)
    return _page(lines)


def _operations(document: dict[str, Any], tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods and tag in methods[method].get("tags", ()):
                yield path, method, methods[method]


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield f"**{operation['summary']}.** {_escaped(' '.join(operation.get('description', '').split()))}".strip()
    rows = []
    for parameter in operation.get("parameters", ()):
        text = parameter.get("description") or parameter.get("schema", {}).get("description", "")
        rows.append((f"`{parameter['name']}`", parameter["in"], _cell(text)))
    if body := _body_name(operation):
        rows.append((f"`{body}`", "body", "JSON"))
    if rows:
        yield _table(("parameter", "in", ""), rows)
    answers = operation["responses"].items()
    good = [f"{status} {_escaped(answer['description'].rstrip('.'))}" for status, answer in answers if status < "400"]
    bad = [status for status, _ in answers if status >= "400"]
    yield f"Answers: {'; '.join(good)}. Problems: {', '.join(bad) or 'none'}."


def _body_name(operation: dict[str, Any]) -> str:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        return str(content.get("schema", {}).get("$ref", "object").rpartition("/")[2])
    return ""


# -- errors and conditions


def errors_page() -> str:
    lines = [
        "# Error codes and conditions",
        NOTE,
        INTRO["errors"],
        "## Errors",
    ]
    fixes = fixes_by_class()
    rows = []
    for kind in sorted(error_classes(), key=lambda kind: kind.code):
        what = " ".join((inspect.cleandoc(kind.__doc__) if kind.__doc__ else kind.title + ".").split())
        rows.append(
            (
                f"`{kind.code}`",
                str(kind.status),
                _cell(what),
                _cell(FIXES.get(kind.code) or _fixes(fixes.get(kind.__name__, ()))),
            )
        )
    lines.append(_table(("code", "status", "what it means", "what to do, as the errors themselves say"), rows))
    lines += [
        "## Problems that hosts report",
        INTRO["problems"],
        _table(
            ("code", "what it means", "what to do"),
            ((f"`{code}`", *map(_cell, said)) for code, said in sorted(CONDITIONS.items())),
        ),
        "## Reasons",
        "`reason` of the conditions `ready` and `converged`, where it is not the code of a problem:",
        _table(
            ("reason", "of", "what it means"),
            ((f"`{code}`", *map(_cell, said)) for code, said in sorted(REASONS.items())),
        ),
    ]
    return _page(lines)


def error_classes() -> list[type[Any]]:
    """Of every error that reaches a user through the API, the CLI or the worker; one for each code."""
    import controller.api.problems  # noqa: F401 - brings the classes
    import worker.running  # noqa: F401
    from kvnet.errors import KvnetError

    found: dict[str, type[KvnetError]] = {}
    waiting: list[type[KvnetError]] = [KvnetError]
    while waiting:
        kind = waiting.pop()
        waiting += [
            c
            for c in kind.__subclasses__()
            if c.__module__.partition(".")[0] in PACKAGES and c.__module__ != "kvnet.problems"
        ]
        if kind.code not in ("error", "docker-failed"):
            found.setdefault(kind.code, kind)
    return list(found.values())


def fixes_by_class() -> dict[str, list[str]]:
    """What the places that raise an error say is to be done: class name -> texts, placeholders as `...`."""
    found: dict[str, list[str]] = {}
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (name := _name(node.func)):
                for keyword in node.keywords:
                    if (
                        keyword.arg == "fix"
                        and (text := _text(keyword.value))
                        and text not in found.setdefault(name, [])
                    ):
                        found[name].append(text)
    return found


def _fixes(texts: Iterable[str], most: int = 4) -> str:
    told = sorted({t.strip() for t in texts if len(t) > 4 and t.strip(". ")}, key=lambda text: (len(text), text))[:most]
    return "; or: ".join(told)


def condition_codes() -> set[str]:
    """Codes of problems that workers report, as the sources have them."""
    found: set[str] = set()
    for package in ("worker", "datapath"):
        for tree in _trees(package):
            constants = _constants(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and _name(node.func) in CODES_BY_CALL and node.args:
                    found |= _codes(node.args[0], constants)
    tree = ast.parse((CHECKOUT / "datapath" / "conditions.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            found |= _codes(node.value.elts[0], {})
    found |= set(_constants(ast.parse((CHECKOUT / "worker/kernel/failures.py").read_text())).values())
    return {code for code in found if CODE.match(code)}


def _codes(node: ast.expr, constants: dict[str, str]) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.Name) and node.id in constants:
        return {constants[node.id]}
    return set()


def _constants(tree: ast.Module) -> dict[str, str]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names = [t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            for name, value in zip(names, values, strict=False):
                if (
                    isinstance(name, ast.Name)
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                    and CODE.match(value.value)
                ):
                    found[name.id] = value.value
    return found


# -- keys


def keys_page() -> str:
    lines = [
        "# Keys of the store",
        NOTE,
        INTRO["keys"],
        _table(
            ("key", "what it holds", "who writes", "who watches"),
            ((f"`{key}`", *map(_cell, KEYS[name])) for name, key in key_names()),
        ),
        "## What lasts, what passes",
        "A cluster is there as long as `meta/cluster` is.",
        f"What workers, sessions and questions write for a time: {_list(keys.PASSING)}.",
        f"What makes a cluster: {_list(keys.LASTING)}. Which of it is in a backup: [backup](../backup.md).",
    ]
    return _page(lines)


def key_names() -> list[tuple[str, str]]:
    """Constants of `kvnet.keys` that are keys or prefixes, in the order of the module."""
    return [(name, value) for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)]


def _list(prefixes: Iterable[str]) -> str:
    return ", ".join(f"`{prefix}`" for prefix in prefixes)


# -- configuration


def configuration_page() -> str:
    lines = [
        "# Configuration: options, environment, files",
        NOTE,
        INTRO["configuration"],
        "## Environment",
        _table(
            ("variable", "read by", "what it is"),
            ((f"`{name}`", *map(_cell, VARIABLES[name])) for name in sorted(VARIABLES)),
        ),
    ]
    for name in ("controller", "worker"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        lines += [f"## kvnet {name}", _options(command, _context(f"kvnet {name}", command))]
    lines += [
        "## Files",
        _table(
            ("path", "of", "what it is"),
            FILES,
        ),
    ]
    return _page(lines)


def variables() -> set[str]:
    """Names of the environment that the sources spell."""
    found = set()
    for package in PACKAGES:
        for path in (CHECKOUT / package).rglob("*.py"):
            found |= set(re.findall(r"\bKVNET_[A-Z_]*[A-Z]\b", path.read_text()))
    return found - INTERNAL


def _trees(package: str | None = None) -> Iterator[ast.Module]:
    for name in (package,) if package else PACKAGES:
        for path in sorted((CHECKOUT / name).rglob("*.py")):
            yield _parsed(path.read_text())


def _parsed(text: str) -> ast.Module:
    """CPython now and then loses count when it collects garbage in the middle (its issue 106905)."""
    try:
        return ast.parse(text)
    except SystemError:
        return ast.parse(text)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return _name(node.value) if node.attr == "field" else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "..." for part in node.values)
    return ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return _escaped(_bar(" ".join(text.split())))


def _bar(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    """Words in angle brackets would be taken for HTML."""
    return re.sub(r"<(?=[a-zA-Z/])", "&lt;", text) if "`" not in text else text


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in written().items():
        path.write_text(text)
        print(path.relative_to(CHECKOUT))


if __name__ == "__main__":
    main()

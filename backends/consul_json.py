"""Consul's JSON: transactions out, pairs and failures in. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from backends.store import Broken, Entry

Operation = dict[str, Any]
_DECODER = json.JSONDecoder()


def transaction(operations: Sequence[Operation]) -> bytes:
    return json.dumps([{"KV": one} for one in operations], ensure_ascii=False, separators=(",", ":")).encode()


def entries(body: bytes, root: str) -> list[Entry]:
    """The pairs of a list (`[{...}]`) or of a transaction (`{"Results":[{"KV":{...}}],...}`), without the root.

    Raises:
        Broken: it is neither.
    """
    try:
        return [
            Entry(one["Key"][len(root) :], base64.b64decode(one["Value"] or ""), one["ModifyIndex"])
            for one in _pairs(body.decode())
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise Broken(f"not what Consul answers: {body[:100]!r}") from error


def newest(body: bytes, key: str | None = None) -> int:
    """The highest index among a transaction's results, or that of one key; 0 if it has none."""
    pairs = _pairs(body.decode())
    return max((one["ModifyIndex"] for one in pairs if key in (None, one["Key"])), default=0)


def failures(body: bytes) -> list[tuple[int, str]]:
    """The operations of a transaction that failed, and why: all of them, not just the first."""
    try:
        return [(one["OpIndex"], one["What"]) for one in json.loads(body)["Errors"] or ()]
    except (ValueError, LookupError, TypeError) as error:
        raise Broken(f"not what Consul answers: {body[:100]!r}") from error


def _pairs(text: str) -> Iterator[dict[str, Any]]:
    """One after the other: other threads have their turn in between, as they would not in one big `json.loads`."""
    if text.startswith("{"):
        at = text.index("[", text.index('"Results":')) if '"Results":[' in text[:20] else 0
        if not at:  # "Results":null
            return
    else:
        at = text.index("[")
    while text[at] in "[,":
        at += 1
        if text[at] == "]":
            return
        found, at = _DECODER.raw_decode(text, at)
        yield found.get("KV", found)
    if text[at] != "]":
        raise ValueError("the list does not end")

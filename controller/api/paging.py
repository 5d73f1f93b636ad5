"""Pages of a list: in the order of a key, continued by an opaque cursor.

The cursor holds the last key given out, so a page never repeats and never skips what stayed, whatever was made or
removed meanwhile; and the revision of the first page, so that a replica that has not come that far yet can be told from
one that has. It is bound to the filters: another question needs another list. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kvnet.errors import Invalid

T = TypeVar("T")
Key = tuple[str, ...]

DEFAULT_LIMIT = 100
MAX_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Cursor:
    after: Key
    revision: int
    question: int  # what the list was asked for, as a checksum

    def text(self) -> str:
        plain = json.dumps([list(self.after), self.revision, self.question], separators=(",", ":"))
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class PageAsked:
    limit: int
    after: Key | None
    revision: int
    question: int

    @classmethod
    def parse(cls, limit: int, cursor: str | None, filters: Mapping[str, object]) -> PageAsked:
        """
        Raises:
            Invalid: the cursor is none of ours, or came from a list with other filters.
        """
        question = zlib.crc32(repr(sorted((k, v) for k, v in filters.items() if v is not None)).encode())
        if cursor is None:
            return cls(limit, None, 0, question)
        found = _decode(cursor)
        if found.question != question:
            raise Invalid.field(
                "/query/cursor", "the cursor belongs to a list with other filters", "keep the filters, or start again"
            )
        return cls(limit, found.after, found.revision, question)


def page(
    items: Sequence[T], key: Callable[[T], Key], asked: PageAsked, revision: int, show: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """The asked page of `items`, which are in the order of `key` (and `key` tells any two apart)."""
    start = 0 if asked.after is None else bisect_right(items, asked.after, key=key)
    chosen = items[start : start + asked.limit]
    cursor = None
    if start + asked.limit < len(items):
        cursor = Cursor(key(chosen[-1]), asked.revision or revision, asked.question).text()
    return {"items": [show(item) for item in chosen], "next_cursor": cursor, "revision": revision}


def _decode(cursor: str) -> Cursor:
    try:
        plain = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        after, revision, question = plain
        if (
            isinstance(revision, int)
            and isinstance(question, int)
            and isinstance(after, list)
            and all(isinstance(part, str) for part in after)
        ):
            return Cursor(tuple(after), revision, question)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise Invalid.field("/query/cursor", "that is not a cursor of this API", "use next_cursor of the page before")

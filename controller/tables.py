"""A mirrored prefix, decoded: every value once per change, never once per read.

A table is a view of the store, always a moment old; who decides by it must let the commit's checks confirm it.
A value that cannot be read, or lies under another's key, is kept out and named in `broken`: one damaged key must not
blind us to the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from backends.mirror import Mirror
from backends.store import Change, Store
from kvnet import codec, places
from kvnet.errors import StoreBroken
from kvnet.model import Versioned

T = TypeVar("T")

# (key without the prefix, what was there, what is there now)
Listener = Callable[[str, Versioned[T] | None, Versioned[T] | None], None]

MAX_EXPECTED = 100_000


class Table(Generic[T]):
    """`items` maps the key without its prefix to the decoded value and its version."""

    def __init__(
        self, store: Store, prefix: str, decode: Callable[[bytes], T], clock: Callable[[], float], rng: random.Random
    ) -> None:
        self.prefix = prefix
        self.mirror = Mirror(store, prefix, on_change=self._on_change, clock=clock, rng=rng)
        self.broken: dict[str, str] = {}
        self._decode = decode
        self._cut = len(prefix)
        self._items: dict[str, Versioned[T]] = {}
        self._listeners: list[Listener[T]] = []
        self._expected: dict[str, tuple[bytes, T]] = {}

    @property
    def items(self) -> Mapping[str, Versioned[T]]:
        return self._items

    def get(self, name: str) -> Versioned[T] | None:
        return self._items.get(name)

    def listen(self, listener: Listener[T]) -> None:
        self._listeners.append(listener)

    def expect(self, key: str, data: bytes, value: T) -> None:
        """This process is about to write `data`; when it comes back through the watch it need not be decoded again."""
        if len(self._expected) >= MAX_EXPECTED:  # commits that failed leave theirs behind
            self._expected.clear()
        self._expected[key] = (codec.unstamped(data), value)

    def _on_change(self, changes: Sequence[Change]) -> None:
        for change in changes:
            name = change.key[self._cut :]
            before = self._items.get(name)
            after = self._decoded(change)
            if after is not None:
                self._items[name] = after
            elif before is not None:
                del self._items[name]
            else:
                continue
            for listener in self._listeners:
                listener(name, before, after)

    def _decoded(self, change: Change) -> Versioned[T] | None:
        entry = change.entry
        self.broken.pop(change.key, None)
        expected = self._expected.pop(change.key, None)
        if entry is None:
            return None
        if expected is not None and expected[0] == codec.unstamped(entry.value):
            return Versioned(expected[1], entry.version)
        try:
            value = self._decode(entry.value)
            places.require_place(change.key, value)
            return Versioned(value, entry.version)
        except StoreBroken as error:
            self.broken[change.key] = error.detail
            return None

"""A mirrored prefix, decoded: every value once per change.

A value that cannot be read keeps its predecessor and is named in `broken`: the worker must not tear down what it merely
does not understand. Tells when a store goes back in time. Never writes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

from backends.mirror import Mirror
from backends.store import Change, Revision, Store
from kvnet import places
from kvnet.errors import KvnetError
from worker.ports import Time
from worker.provenance import Origins

T = TypeVar("T")
PATIENCE_S = 60.0


class Table(Generic[T]):
    """`items` by the last part of the key. `on_change` is called with the names of what came, changed or went,
    `origins` are told whose doing that was."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        parse: Callable[[bytes], T],
        on_change: Callable[[Collection[str]], None],
        time: Time,
        origins: Origins | None = None,
    ) -> None:
        self.mirror = Mirror(store, prefix, on_change=self._take, rng=time.rng, clock=time.monotonic, sleep=time.sleep)
        self.broken: dict[str, str] = {}
        # What it had reached, and what it fell back to, if the store went back in time since it was last accepted.
        self.fell_back: tuple[Revision, Revision] | None = None
        self._items: dict[str, T] = {}
        self._parse = parse
        self._origins = origins
        self._on_change = on_change
        self.is_owed = False
        self.relisted_at: Revision = 0
        self.lists = 0
        self.mirror.on_list = self._on_list

    @property
    def items(self) -> Mapping[str, T]:
        return self._items

    @property
    def unknown(self) -> Collection[str]:
        """What is there and cannot be read, and never could: nothing is known of it."""
        return [name for name in self.broken if name not in self._items] if self.broken else ()

    def start_over(self) -> None:
        """The store was accepted as it is: forget how far it had come, and read it anew. Owed until that is done."""
        self.fell_back, self.relisted_at = None, 0
        self.is_owed = self.mirror.in_step  # of its first list, which is on its way then, a mirror does not tell
        self.mirror.relist()

    def _on_list(self, before: Revision, now: Revision) -> None:
        """Only a list can bring a mirror back in time."""
        if now < before and self.fell_back is None and not self.is_owed:
            self.fell_back = before, now
        self.is_owed, self.relisted_at = False, now
        self.lists += 1

    def _take(self, changes: Sequence[Change]) -> None:
        names = []
        for change in changes:
            name = change.key.rsplit("/", 1)[-1]
            names.append(name)
            self.broken.pop(name, None)
            if change.entry is None:
                self._items.pop(name, None)
                continue
            try:
                value = self._parse(change.entry.value)
                places.require_place(change.key, value)
                self._items[name] = value
            except (KvnetError, ValueError, TypeError) as error:
                self.broken[name] = str(error)
        if self._origins is not None:
            self._origins.note(changes, self.mirror.revision)
        self._on_change(names)


async def until_in_step(table: Table[T]) -> None:
    """However long it takes; the mirror itself never gives up."""
    while not table.mirror.in_step:
        try:
            await table.mirror.until_in_step(PATIENCE_S)
        except TimeoutError:
            continue

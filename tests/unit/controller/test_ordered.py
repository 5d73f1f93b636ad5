"""A table in the order of a list: whatever happened between two questions, the answer is what sorting would give."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from backends.memory import MemoryStore
from backends.store import Change, Entry
from controller.ordered import FEW, Ordered
from controller.tables import Table
from kvnet.model import Versioned

NAMES = st.sampled_from([f"{group}{n}" for group in ("a", "ab", "b") for n in range(40)])
STEPS = st.lists(st.one_of(st.tuples(NAMES, st.sampled_from(["x", "y", "z", None])), st.none()), max_size=200)


def key(one: Versioned[str]) -> tuple[str, ...]:
    group, _, rest = one.value.partition("/")
    return group, rest


class Fed:
    """A table that is told changes without a store. Values are `group/text/name`."""

    def __init__(self) -> None:
        self.table = Table(MemoryStore(), "t/", bytes.decode, lambda: 0.0, random.Random(0))
        self.ordered = Ordered(self.table, key)
        self._version = 0

    def tell(self, name: str, text: str | None) -> None:
        self._version += 1
        value = f"{name.rstrip('0123456789')}/{text}/{name}".encode()
        entry = None if text is None else Entry(f"t/{name}", value, self._version)
        self.table._on_change([Change(f"t/{name}", entry)])

    def require_sorted(self) -> None:
        wanted = sorted(self.table.items.values(), key=key)
        assert list(self.ordered.all()) == wanted
        for group in ("a", "ab", "b"):
            assert list(self.ordered.under(group)) == [one for one in wanted if key(one)[0] == group]


@given(STEPS)
def test_it_is_what_sorting_gives_at_every_question(steps: list[tuple[str, str | None] | None]) -> None:
    fed = Fed()
    for step in steps:
        if step is None:
            fed.require_sorted()
        else:
            fed.tell(*step)
    fed.require_sorted()


def test_what_came_in_a_flood_is_sorted_anew() -> None:
    fed = Fed()
    fed.require_sorted()
    for n in range(3 * FEW):
        fed.tell(f"a{n}", "x")
    fed.require_sorted()

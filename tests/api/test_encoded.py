"""What many hosts are told is encoded once, and says the same as if it were encoded for each."""

from __future__ import annotations

import json
from collections.abc import Callable

from backends import gateway_wire as wire
from backends.store import Batch, Change, Entry, Snapshot
from controller.api.encoded import CHANGES, Encodings


class Later:
    """What is to be called, when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append(call)


def change(number: int) -> Change:
    key = f"hosts/h{number}"
    return Change(key, Entry(key, b"\x00\xff" * number, number + 1) if number % 3 else None)


def test_a_line_says_what_the_wire_says() -> None:
    encodings = Encodings(Later())
    for batch in (Batch((), 7), Batch((change(1),), 8), Batch(tuple(map(change, range(CHANGES + 5))), 9)):
        line = encodings.line(batch)

        assert line.endswith(b"\n")
        assert b"\n" not in line[:-1]
        assert json.loads(line) == wire.batch_to_json(batch)
        assert encodings.line(batch) == line


def test_a_shared_snapshot_is_encoded_once_and_not_kept_for_long() -> None:
    later = Later()
    encodings = Encodings(later)
    snapshot = Snapshot(tuple(Entry(f"hosts/h{n}", b"x", n) for n in range(1, 4)), 3)

    body = encodings.snapshot(snapshot)

    assert encodings.snapshot(snapshot) is body
    assert json.loads(body) == wire.snapshot_to_json(snapshot)
    assert len(later.calls) == 1
    later.calls[0]()
    assert encodings.snapshot(snapshot) is not body

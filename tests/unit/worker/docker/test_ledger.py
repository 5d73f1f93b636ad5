"""What Docker was told survives a restart of the worker, and damage costs one line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kvnet.errors import StateUnusable
from worker.disk import StateDir
from worker.log import Log
from worker.runtimes.docker.ledger import BINDINGS, Binding, Ledger, OwnCalls, Want

BOUND = Binding("d" * 64, "0123456789ab", ("10.1.0.0/24", "fd00:1::/64"), {"10.1.0.0/24": "10.1.0.1"}, since=7.0)
WANT = Want("fd00:2::/64", "ba9876543210", 5.0, reserved=("fd00:2::9",), is_automatic=True)


def _loaded(state: StateDir) -> Ledger:
    ledger = Ledger(state, Log(io.StringIO()))
    ledger.load()
    return ledger


@pytest.mark.anyio
async def test_bindings_and_wants_are_there_again_after_a_restart(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    ledger = _loaded(state)
    await ledger.bind(BOUND)
    await ledger.keep(WANT)

    again = _loaded(state)

    assert list(again.bindings()) == [BOUND]
    assert again.bindings_of(BOUND.network) == [BOUND]
    assert again.bound_to("fd00:1::/64") == BOUND
    assert again.want(WANT.cidr) == WANT


@pytest.mark.anyio
async def test_what_was_dropped_stays_away_and_may_be_dropped_twice(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path)
    ledger = _loaded(state)
    await ledger.bind(BOUND)
    await ledger.keep(WANT)
    for _ in range(2):
        await ledger.unbind(BOUND.docker)
        await ledger.drop(WANT.cidr)

    again = _loaded(state)

    assert not list(again.bindings())
    assert not list(again.wants())


@pytest.mark.anyio
@pytest.mark.parametrize("damage", [b"", b"{", b'{"v":1}', b'{"v":99}', b"[]", b"\xff"])
async def test_a_damaged_line_is_left_out_and_the_others_are_read(tmp_path: Path, damage: bytes) -> None:
    state = StateDir.open(tmp_path)
    await _loaded(state).bind(BOUND)
    state.write(f"{BINDINGS}/{'e' * 64}", damage, durable=False)
    said = io.StringIO()
    ledger = Ledger(state, Log(said))

    ledger.load()

    assert list(ledger.bindings()) == [BOUND]
    assert "ledger-unreadable" in said.getvalue()


@pytest.mark.anyio
async def test_what_could_not_be_written_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateDir.open(tmp_path)
    ledger = _loaded(state)

    def full(name: str, data: bytes, *, durable: bool, room: int = 0) -> None:
        raise StateUnusable("no space left on device")

    monkeypatch.setattr(state, "write", full)
    with pytest.raises(StateUnusable):
        await ledger.bind(BOUND)
    with pytest.raises(StateUnusable):
        await ledger.keep(WANT)

    assert not list(ledger.bindings())
    assert not list(ledger.wants())


def test_a_call_is_our_own_as_long_as_any_of_ours_runs() -> None:
    own = OwnCalls()
    with own.posting(["10.1.0.0/24"]):
        with own.posting(["10.1.0.0/24"]), own.removing("d1"):
            assert own.is_posting("10.1.0.0/24")
            assert own.is_removing("d1")
        assert own.is_posting("10.1.0.0/24")
        assert not own.is_removing("d1")
    assert not own.is_posting("10.1.0.0/24")

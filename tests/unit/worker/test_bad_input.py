"""What a caller, an operator or a damaged disk may bring: refused by name, and nothing is changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.errors import Invalid, StateUnusable
from worker.agenda import Agenda
from worker.disk import StateDir
from worker.requests import AttachRequest, parse_attach, parse_detach
from worker.settings import Settings, Timing, parse_underlay

GOOD = {"op": "attach", "network": "n", "netns": "c1", "name": "c1"}
UGLY = st.text(max_size=40) | st.integers() | st.booleans() | st.lists(st.text(max_size=3), max_size=3) | st.none()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "c1; rm -rf /"),
        ("name", "../../etc/passwd"),
        ("network", "a/b"),
        ("network", ""),
        ("netns", ""),
        ("netns", "a\nb"),
        ("interface", "eth0/../x"),
        ("interface", "a" * 16),
        ("interface", "lo"),
        ("interface", "eth 0"),
        ("interface", "-x"),
        ("id", "../x"),
        ("id", "a" * 65),
        ("address", "10.0.0.300"),
        ("address", "fd00::1"),
        ("address6", "10.0.0.1"),
        ("mac", "01:00:00:00:00:01"),
        ("mac", "zz"),
        ("aliases", "a"),
        ("aliases", ["a b"]),
        ("aliases", ["a"] * 33),
        ("labels", {"a": 1}),
        ("labels", {"": "x"}),
        ("wait", -1),
        ("wait", "1"),
        ("wait", True),
        ("wait", 1e9),
        ("colour", "red"),
        ("hostname", "a;b"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_attach({**GOOD, field: value})
    assert refusal.value.errors[0].pointer.startswith(f"/{field}")


@pytest.mark.parametrize("field", ["network", "netns", "name"])
def test_a_missing_field_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(Invalid, match=f"{field} is missing"):
        parse_attach({name: value for name, value in GOOD.items() if name != field})


@given(st.dictionaries(st.sampled_from([*AttachRequest.__slots__, "x"]), UGLY, max_size=6))
def test_any_object_is_either_a_request_or_invalid(message: dict[str, Any]) -> None:
    for parse in (parse_attach, parse_detach):
        try:
            parse({**GOOD, **message} if parse is parse_attach else message)
        except Invalid:
            continue


def test_detaching_everything_of_a_network_by_mistake_is_not_possible() -> None:
    with pytest.raises(Invalid, match="what is to be detached"):
        parse_detach({"network": "my-net"})


@pytest.mark.parametrize(
    "text", ["", "two words", "eth0/5", "lo", "a-name-too-long-by-far", "127.0.0.1", "::", "224.0.0.1", "10.0.0.1/24"]
)
def test_an_underlay_that_peers_cannot_reach_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_underlay(text)


def test_settings_are_judged_before_anything_is_touched(tmp_path: Path) -> None:
    underlay = parse_underlay("192.0.2.1")
    with pytest.raises(Invalid, match="not a name"):
        Settings("http://c", "a b", underlay, tmp_path)
    with pytest.raises(Invalid, match="TTL"):
        Settings("http://c", "h1", underlay, tmp_path, timing=Timing(ttl_s=5))
    with pytest.raises(Invalid, match="too long"):
        Settings("http://c", "h1", underlay, tmp_path, socket=tmp_path / ("x" * 120))


def test_a_state_directory_has_one_worker(tmp_path: Path) -> None:
    first = StateDir.open(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    with pytest.raises(StateUnusable, match="another worker"):
        StateDir.open(tmp_path / "s")
    first.close()
    StateDir.open(tmp_path / "s").close()


def test_a_state_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="cannot be used"):
        StateDir.open(tmp_path / "file")
    with pytest.raises(StateUnusable, match="cannot be used"):
        StateDir.open(tmp_path / "file" / "below")


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_and_half_written_ones_are_not_seen(tmp_path: Path, durable: bool) -> None:
    state = StateDir.open(tmp_path)
    state.write("f/a", b"one", durable=durable)
    state.write("f/a", b"two", durable=durable)
    (tmp_path / "f" / "b.new").write_bytes(b"ha")
    assert state.read("f/a") == b"two"
    assert state.names("f") == ["a"]
    assert (tmp_path / "f" / "a").stat().st_mode & 0o077 == 0
    state.remove("f/a")
    state.remove("f/a")
    assert state.read("f/a") is None
    state.close()


def test_a_file_name_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path / "s")
    (tmp_path / "precious").write_text("precious")
    os.symlink(tmp_path / "precious", tmp_path / "s" / "a.new")
    with pytest.raises(StateUnusable):
        state.write("a", b"x", durable=False)
    assert (tmp_path / "precious").read_text() == "precious"
    state.close()


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.tuples(NAMES, st.floats(0, 10), st.booleans(), st.booleans()), max_size=30)


@given(STEPS)
def test_every_reason_to_look_is_taken_once_it_is_due_and_not_before(
    steps: list[tuple[str, float, bool, bool]],
) -> None:
    agenda = Agenda()
    for name, at, read, everything in steps:
        if everything:
            agenda.add_everything(at)
        else:
            agenda.add([name], at, read=read)
    for now in range(11):
        work = agenda.take(float(now))
        due = agenda.next_due()
        assert due is None or due > now
        if work is not None:
            assert work.read <= work.networks
    assert agenda.take(11.0) is None
    assert agenda.next_due() is None

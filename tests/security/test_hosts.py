"""What a host's credential is good for, as decisions over plain data: nothing that is not named is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.store import Absent, Delete, Present, Put, Unchanged
from controller.security import session_seal
from controller.security.host_calls import own_key, require_own_places
from controller.security.host_values import require_place, written_of
from controller.security.hosts import OF_DOCKER, ROUTES, Reach, list_of, may, read_of
from controller.security.permissions import TABLE
from controller.security.principal import Principal
from kvnet import codec, keys
from kvnet.errors import Forbidden
from kvnet.model import Alive, Condition, Host, HostState, Inventory, NetworkObserved, Observed, UsedRange
from kvnet.questions import Answer
from kvnet.security import Grant, Role

T = TypeVar("T")
ME, OTHER = "h1", "h10"
NETWORK = "0123456789ab"
H1 = Principal("host:h1", Role.HOST, token="0" * 12, host=ME)
RECORD = Host(ME, IPv4Address("192.0.2.1"), 1500, ("bridge", "overlay"), segment=ip_network("192.0.2.0/24"))

OWN_KEYS = ("hosts/h1", "inventory/h1", "alive/h1", "observed/h1", "reclaims/h1", "questions/h1/q1", "local/h1/e1")
OWN_PREFIXES = ("meta/", "hosts/", "local/h1/", "questions/h1/")

TOP = [
    *("meta", "guards", "leader", "pools", "subnets", "names", "vnis", "networks", "addresses", "endpoints", "local"),
    *("hosts", "inventory", "alive", "observed", "journal", "reclaims", "blocks", "ports", "bridges", "questions"),
    *("answers", "tokens", "secrets", "seals", ".kvnet", "", "h1", ".", ".."),
]
PART = st.one_of(
    st.sampled_from(
        [*TOP, ME, OTHER, "h", "H1", "h1 ", "h1\0", "h1%2f", "h1/", NETWORK, NETWORK.upper(), NETWORK[:11]]
    ),
    st.text(max_size=8),
)
KEY = st.builds(
    lambda parts, end: "/".join(parts) + end, st.lists(PART, min_size=0, max_size=5), st.sampled_from(["", "/"])
)


def allowed(decide: Callable[..., T], *args: object) -> T | None:
    try:
        return decide(*args)
    except Forbidden:
        return None


@given(KEY)
def test_what_a_host_reads_by_key_is_its_own_everybodys_or_of_a_network(key: str) -> None:
    read = allowed(read_of, ME, key)
    if read is None:
        return
    assert not key.startswith(keys.SECRET)
    first, *rest = key.split("/")
    if first in ("networks", "endpoints", "blocks"):
        assert read.reach is Reach.PART
        assert read.network == rest[0]
        assert len(rest) == (1 if first == "networks" else 2)
    elif first == "names":
        assert read.reach is Reach.NAME
    else:
        assert first in ("meta", "hosts") or rest[0] == ME
        assert len(rest) == (2 if first in ("local", "questions") else 1)


@given(KEY)
def test_what_a_host_lists_shows_no_other_hosts_keys(prefix: str) -> None:
    read = allowed(list_of, ME, prefix)
    if read is None:
        return
    of_network = [f"networks/{NETWORK}", f"endpoints/{NETWORK}/", f"blocks/{NETWORK}/"]
    assert prefix in (*OWN_PREFIXES, keys.NETWORKS, *of_network)
    # Whatever is under the prefix is everybody's, this host's, or of the one network.
    assert not any(key.startswith(prefix) for key in ("local/h10/e", "questions/h10/q", "tokens/x", "secrets/gateway"))


@pytest.mark.parametrize(
    "prefix", ["", "h", "host", "hosts", "local", "local/", "local/h1", "endpoints/", "endpoints", "e"]
)
def test_a_prefix_that_is_shorter_than_a_hosts_own_is_refused(prefix: str) -> None:
    with pytest.raises(Forbidden):
        list_of(ME, prefix)


def test_what_a_worker_needs_is_allowed() -> None:
    assert all(list_of(ME, prefix).reach is Reach.FREE for prefix in OWN_PREFIXES)
    assert all(read_of(ME, key).reach is Reach.FREE for key in (*OWN_KEYS, "meta/cluster", "hosts/h10"))
    assert list_of(ME, f"networks/{NETWORK}").network == NETWORK
    assert list_of(ME, keys.NETWORKS).reach is Reach.CATALOGUE


WRITABLE = {"hosts/h1", "inventory/h1", "alive/h1", "observed/h1"}


@given(KEY, st.binary(max_size=20) | st.just(codec.encode(RECORD)), st.sampled_from([None, "s"]))
def test_no_key_but_its_own_is_written(key: str, value: bytes, session: str | None) -> None:
    if allowed(written_of, ME, [], [Put(key, value, session)]) is not None:
        assert key in WRITABLE


@given(KEY)
def test_no_key_but_its_own_mark_is_deleted(key: str) -> None:
    assert (allowed(written_of, ME, [], [Delete(key)]) is not None) == (key == "reclaims/h1")


@given(KEY, st.integers())
def test_no_check_asks_what_another_has(key: str, version: int) -> None:
    for check in (Absent(key), Present(key), Unchanged(key, version)):
        if allowed(written_of, ME, [check], [Delete("reclaims/h1")]) is not None:
            first, owner, *rest = key.split("/")
            assert owner == ME
            assert first in ("hosts", "inventory", "alive", "observed", "reclaims") or (first, len(rest)) == (
                "questions",
                1,
            )


GOOD = {
    "hosts/h1": RECORD,
    "inventory/h1": Inventory(ME, (UsedRange(ip_network("10.0.0.0/8"), "route dev eth0"),), "6.1", "1", "b"),
    "observed/h1": Observed(ME, 1.0, {NETWORK: NetworkObserved(7, (Condition("uplink-down", "it is", 1.0),))}),
}


@pytest.mark.parametrize(("key", "value"), GOOD.items())
def test_a_good_value_about_itself_is_let_through(key: str, value: object) -> None:
    written_of(ME, [], [Put(key, codec.encode(value))])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hosts/h1", replace(RECORD, name=OTHER)),
        ("hosts/h1", replace(RECORD, state=HostState.EVICTED)),
        ("hosts/h1", replace(RECORD, state=HostState.LEAVING)),
        ("hosts/h1", replace(RECORD, abilities=("x",) * 17)),
        ("hosts/h1", replace(RECORD, abilities=("x" * 65,))),
        ("hosts/h1", replace(RECORD, abilities=("a\x1b[2J",))),
        ("inventory/h1", Inventory(OTHER)),
        ("inventory/h1", Inventory(ME, kernel="x" * 257)),
        ("inventory/h1", Inventory(ME, version="\x1b]0;")),
        ("observed/h1", Observed(OTHER, 1.0)),
        ("observed/h1", Observed(ME, 1.0, {"../h2": NetworkObserved(1)})),
        ("observed/h1", Observed(ME, 1.0, {NETWORK: NetworkObserved(-1)})),
        ("observed/h1", Observed(ME, 1.0, {NETWORK: NetworkObserved(1, (Condition("x y", "", 1.0),))})),
    ],
)
def test_a_value_about_another_or_out_of_bounds_is_refused(key: str, value: object) -> None:
    with pytest.raises(Forbidden):
        written_of(ME, [], [Put(key, codec.encode(value))])


@given(st.sampled_from(sorted(WRITABLE)), st.binary(max_size=200))
def test_what_cannot_be_read_is_not_written(key: str, value: bytes) -> None:
    with pytest.raises(Forbidden):
        written_of(ME, [], [Put(key, value, "s" if key == "alive/h1" else None)])


def test_the_proof_of_life_is_under_a_session_and_nothing_else_is() -> None:
    alive = codec.encode(Alive(ME, "run-1", 1.0))
    assert written_of(ME, [], [Put("alive/h1", alive, "s")]).session == "s"
    for put in (Put("alive/h1", alive), Put("hosts/h1", codec.encode(RECORD), "s")):
        with pytest.raises(Forbidden, match="session"):
            written_of(ME, [], [put])


def test_only_who_is_asked_answers_and_about_that_question() -> None:
    answer = codec.encode(Answer("q1", ME, 1.0, {}))
    asked = Present("questions/h1/q1")
    written_of(ME, [asked], [Put("answers/q1", answer)])
    others = codec.encode(Answer("q1", OTHER, 1.0, {}))
    for checks, put in (
        ([], Put("answers/q1", answer)),
        ([Present("questions/h1/q2")], Put("answers/q1", answer)),
        ([Absent("questions/h1/q1")], Put("answers/q1", answer)),
        ([asked], Put("answers/q2", answer)),
        ([asked], Put("answers/q1", others)),
        ([Present("questions/h10/q1")], Put("answers/q1", answer)),
    ):
        with pytest.raises(Forbidden):
            written_of(ME, checks, [put])


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.1.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "ff02::1", "::ffff:192.0.2.2", "2001:db8::1%eth0"),
    ],
)
def test_an_underlay_address_that_is_no_interfaces_is_refused(address: str) -> None:
    with pytest.raises(Forbidden):
        require_place(Host(ME, ip_address(address), 1500), None, "", "")


@pytest.mark.parametrize("segment", ["0.0.0.0/0", "198.51.100.0/24", "2001:db8::/64"])
def test_a_segment_that_the_address_is_not_in_or_that_is_everything_is_refused(segment: str) -> None:
    with pytest.raises(Forbidden, match="segment"):
        require_place(replace(RECORD, segment=ip_network(segment)), None, "", "")


def test_an_underlay_of_others_is_refused_unless_it_was_the_hosts_before() -> None:
    for holder, claimed in (("h2", ""), ("", "the address of a workload")):
        with pytest.raises(Forbidden):
            require_place(RECORD, replace(RECORD, underlay=IPv6Address("2001:db8::1")), holder, claimed)
        require_place(RECORD, RECORD, holder, claimed)
    require_place(RECORD, None, "", "")


def test_a_host_acts_for_itself_alone_and_nobody_else_is_asked() -> None:
    require_own_places(H1, [ME, ME])
    for hosts in ([OTHER], [ME, OTHER], ["H1"], ["h1 "], [""]):
        with pytest.raises(Forbidden):
            require_own_places(H1, hosts)
        require_own_places(Principal("ops", Role.OPERATOR), hosts)
        require_own_places(None, hosts)


def test_no_hosts_idempotency_key_is_anothers() -> None:
    other = replace(H1, host=OTHER)
    assert len({own_key(H1, "k"), own_key(other, "k"), own_key(None, "k"), own_key(H1, "0k")}) == 4


def test_a_host_may_call_what_is_listed_and_nothing_else() -> None:
    docker = replace(H1, grants=(Grant.DOCKER,))
    assert {route for route in TABLE if may(H1, *route, {"host": ME})} <= ROUTES | {("GET", "/v1/hosts/{host}")}
    assert {route for route in TABLE if may(docker, *route, {"host": ME})} <= ROUTES | OF_DOCKER
    assert not may(H1, "GET", "/v1/hosts/{host}", {"host": OTHER})
    for refused in (
        ("POST", "/v1/networks/prune"),
        ("PATCH", "/v1/networks/{network}"),
        ("POST", "/v1/networks/{network}/reservations"),
        ("POST", "/v1/pools"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/tokens"),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
        ("DELETE", "/v1/hosts/{host}"),
        ("POST", "/v1/hosts/{host}/pause"),
        ("GET", "/v1/nothing-that-is-known"),
    ):
        assert not may(docker, *refused, {"host": ME})


NAMES = st.from_regex(r"\A[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?\Z")


@given(st.binary(min_size=32, max_size=32), NAMES, NAMES, st.text(max_size=40), st.text(max_size=80))
def test_a_sealed_session_opens_for_its_host_alone(
    secret: bytes, host: str, other: str, session: str, junk: str
) -> None:
    session = session.encode("utf-8", "ignore").decode()
    text = session_seal.sealed(secret, host, session)
    assert session_seal.unsealed(secret, host, text) == session
    assert text.isascii()
    assert "/" not in text
    assert "=" not in text
    if other != host:
        assert session_seal.unsealed(secret, other, text) is None
    assert session_seal.unsealed(b"x" + secret, host, text) is None
    assert session_seal.unsealed(secret, host, text + "A") is None
    assert session_seal.unsealed(secret, host, junk) in (None, session)


def test_no_two_pairs_of_host_and_session_have_one_seal() -> None:
    secret = b"s" * 32
    assert session_seal.unsealed(secret, "h1", session_seal.sealed(secret, "h10", "x")) is None
    assert session_seal.unsealed(secret, "h", session_seal.sealed(secret, "h1", "x")) is None

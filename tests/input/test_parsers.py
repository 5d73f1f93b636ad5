"""Every reader of what others send takes anything: it understands it, or says no in its own words. Nothing else.

The generated input is near to what is meant: the right members with the wrong things in them, at every depth.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import random
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import gateway_wire
from backends.store import Conflict, StoreError
from backends.url import parse_server_url
from cli.values import ChangeType, DurationType, PairType
from datapath.objects import Scope
from datapath.rules import iptables, nft
from datapath.rules.ruleset import Packet
from datapath.rules.values import SHAPES
from datapath.rules.walk import drops
from kvnet import codec, keys, places
from kvnet.errors import Invalid, KvnetError, StoreBroken
from kvnet.http import Target
from kvnet.moments import moment
from kvnet.publish import parse_publish
from kvnet.security import parse_token
from tests.input.fuzz.targets import MODELS, examples
from tests.input.hostile import every_lie
from worker.kernel import dump, linux
from worker.kernel import messages as m
from worker.kernel.events import Interest, Noticed
from worker.kernel.netlink import HEADER, Netlink, attribute, nested
from worker.kernel.nftables import SUBSYSTEM
from worker.kernel.read import Reader
from worker.log import Log
from worker.runtimes.cni import options as cni
from worker.runtimes.cni.request import parse_call
from worker.runtimes.docker import wire as docker
from worker.runtimes.docker.members import parsed
from worker.runtimes.docker.options import network_wishes, pool_wishes
from worker.runtimes.netavark import words as netavark
from worker.server import Server

texts = st.text(max_size=12) | st.sampled_from(["", "\ud800", "a/b", "10.0.0.0/8", "10.0.0.1", "fe80::1%x", "x" * 300])
numbers = st.integers(-(2**70), 2**70) | st.floats()
leaves = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these members, whatever is in them."""
    return st.dictionaries(st.sampled_from(names), anything, max_size=len(names))


# what is stored


@pytest.mark.parametrize("number", range(len(MODELS)), ids=[model.__name__ for _, model in MODELS])
def test_a_stored_value_with_any_field_replaced_is_exactly_read_or_broken(number: int) -> None:
    (key, model), example = MODELS[number], examples()[number]
    for what, data in every_lie(codec.encode(example)):
        try:
            value = codec.decode(model, data)
            places.require_place(key, value)
        except StoreBroken:
            continue
        assert codec.decode(model, codec.encode(value)) == value, what
        json.dumps(codec.to_json(value)).encode()


@given(st.sampled_from([key for key, _ in MODELS]), texts)
def test_a_value_under_another_key_is_not_believed(key: str, other: str) -> None:
    number = [one for one, _ in MODELS].index(key)
    prefix = key[: key.find("/") + 1]
    if f"{prefix}{other}" != key and prefix not in (keys.META, keys.JOURNAL, keys.SUBNETS):
        with pytest.raises(StoreBroken):
            places.require_place(f"{prefix}{other}", examples()[number])


@given(st.floats(allow_nan=False) | st.integers(-(2**80), 2**80))
def test_any_moment_can_be_told(at: float) -> None:
    assert moment(at).endswith("Z")


# the store gateway, both ways

ENTRY = objects("key", "version", "value")
SENT = objects("checks", "writes", "key", "prefix", "after", "ttl_s", "entries", "changes", "revision", "code", "keys")


@given(SENT | st.fixed_dictionaries({name: st.lists(ENTRY | anything, max_size=3) for name in ("entries", "changes")}))
def test_what_the_gateway_hears_is_understood_or_a_value_error(plain: dict[str, Any]) -> None:
    readers: list[Callable[[Any], object]] = [
        gateway_wire.transaction_from_json,
        gateway_wire.snapshot_from_json,
        gateway_wire.batch_from_json,
        gateway_wire.entry_from_json,
        *(lambda p, n=name: gateway_wire.number(p, n) for name in ("after", "revision")),
        *(lambda p, n=name: gateway_wire.text(p, n) for name in ("key", "prefix")),
        lambda p: gateway_wire.seconds(p, "ttl_s"),
    ]
    for read in readers:
        with contextlib.suppress(ValueError):
            read(plain)


@given(st.sampled_from(["store-conflict", "store-broken", "x", 1, None]), anything, anything)
def test_any_problem_of_a_controller_is_a_store_error_or_none(code: Any, keys_: Any, detail: Any) -> None:
    found = gateway_wire.error_from_json({"code": code, "keys": keys_, "detail": detail})
    assert found is None or isinstance(found, StoreError)
    if code == "store-conflict":
        assert isinstance(found, Conflict)


# runtimes

DOCKER = objects(
    *("NetworkID", "EndpointID", "SandboxKey", "Options", "IPv4Data", "IPv6Data", "AddressSpace", "Pool", "SubPool"),
    *("V6", "PoolID", "Address", "Interface", "com.docker.network.generic", "com.docker.network.portmap", "MacAddress"),
)


@given(DOCKER | st.fixed_dictionaries({"NetworkID": st.just("n1"), "Options": DOCKER, "IPv4Data": st.lists(DOCKER)}))
def test_any_body_of_docker_is_a_request_or_refused_by_its_member(plain: dict[str, Any]) -> None:
    kinds = (
        docker.PoolRequest,
        docker.AddressRequest,
        docker.NetworkRequest,
        docker.EndpointRequest,
    )
    members = parsed(json.dumps(plain).encode())
    for kind in kinds:
        with contextlib.suppress(KvnetError):
            kind.of(members)


@given(st.binary(max_size=200))
def test_any_bytes_of_docker_are_an_object_or_refused(body: bytes) -> None:
    with contextlib.suppress(Invalid):
        parsed(body)


@given(st.dictionaries(st.sampled_from(["kvnet.driver", "kvnet.vni", "mtu", "kvnet.mtu"]) | texts, texts, max_size=4))
def test_any_option_of_a_network_is_a_wish_or_refused(words: dict[str, str]) -> None:
    for read in (network_wishes, pool_wishes):
        with contextlib.suppress(KvnetError):
            read(words)


ENVIRONMENT = st.fixed_dictionaries(
    {
        "CNI_COMMAND": st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]) | anything,
        "CNI_CONTAINERID": st.just("c1") | anything,
        "CNI_NETNS": st.just("/run/netns/x") | anything,
        "CNI_IFNAME": st.just("eth0") | anything,
    },
    optional={"CNI_ARGS": texts | st.just("K8S_POD_NAME=a;IP=10.1.0.2")},
)
CONFIGURATION = st.fixed_dictionaries(
    {"cniVersion": st.just("1.0.0") | anything, "name": st.just("n") | anything},
    optional={
        "network": anything,
        "ipam": objects("type", "addresses") | anything,
        "args": objects("cni", "labels") | anything,
        "runtimeConfig": objects("portMappings", "ips", "mac", "aliases", "dns") | anything,
        "create": objects("driver", "subnets") | anything,
        "dns": anything,
        "labels": anything,
        "prevResult": anything,
    },
)


@given(ENVIRONMENT, CONFIGURATION)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_call_of_cni_is_a_request_or_refused(environment: dict[str, Any], config: dict[str, Any]) -> None:
    with contextlib.suppress(KvnetError):
        call = parse_call(environment, config)
        cni.attach_request(call, "e1")
        cni.network_to_create(call)


NETAVARK = st.fixed_dictionaries(
    {"container_id": st.just("c1") | anything, "container_name": st.just("web") | anything},
    optional={
        "network": objects("id", "name", "options", "subnets", "labels", "driver") | anything,
        "network_options": objects("interface_name", "aliases", "static_ips", "static_mac") | anything,
        "port_mappings": st.lists(objects("container_port", "host_port", "range", "protocol", "host_ip")) | anything,
        "subnets": st.lists(objects("subnet", "gateway", "lease_range") | anything, max_size=2) | anything,
        "options": st.dictionaries(texts, texts, max_size=2) | anything,
        "labels": anything,
        "name": texts,
        "ipam_options": anything,
    },
)


@given(NETAVARK)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_call_of_netavark_is_a_request_or_refused(given_: dict[str, Any]) -> None:
    with contextlib.suppress(KvnetError):
        netavark.setup_request(given_, "/run/netns/x", netavark.external_of(given_), "e1")
    with contextlib.suppress(KvnetError):
        netavark.network_body(given_)


@given(st.binary(max_size=100) | anything.map(lambda plain: json.dumps(plain).encode()) | st.just(b"[" * 60_000))
def test_any_line_to_the_worker_is_answered(line: bytes) -> None:
    async def status(_: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    server = Server(None, {"status": status}, log=Log())  # type: ignore[arg-type]
    answer = asyncio.run(server._answer(line))
    assert answer["ok"] or answer["error"]["code"]


# the kernel

ATTRIBUTES = st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=24)), max_size=8).map(
    lambda pairs: b"".join(attribute(kind, value) for kind, value in pairs)
)
LINKINFO = st.tuples(st.sampled_from(["bridge", "vxlan", "veth", "macvlan"]), ATTRIBUTES).map(
    lambda of: nested(18, attribute(1, of[0].encode() + b"\0"), nested(2, of[1]), nested(5, of[1]))
)
NAMED = st.sampled_from([b"kvb0\0", b"kvx0\0", b"kve0\0", b"eth0\0"]).map(lambda name: attribute(3, name))
HEADS = st.binary(min_size=0, max_size=20)
BODIES = st.lists(
    st.tuples(HEADS, NAMED, LINKINFO, ATTRIBUTES).map(b"".join) | st.tuples(HEADS, ATTRIBUTES).map(b"".join),
    max_size=4,
)
NOT_UNDERSTOOD = (OSError, struct.error, LookupError)


class Told:
    """A netlink socket that tells what it is given."""

    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies = bodies

    def dump(self, _: object) -> list[bytes]:
        return self._bodies

    def get(self, _: object) -> bytes | None:
        return self._bodies[0] if self._bodies else None


@given(BODIES)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_dump_is_a_state_or_not_understood(bodies: list[bytes]) -> None:
    reader = Reader(Told(bodies))  # type: ignore[arg-type]
    for scope in (Scope(), Scope("0123456789ab")):
        with contextlib.suppress(*NOT_UNDERSTOOD):
            reader.read(scope)
    with contextlib.suppress(*NOT_UNDERSTOOD):
        list(dump.addresses(bodies, {0: "kvb0"}))
    for family in (m.AF_INET, m.AF_INET6):
        with contextlib.suppress(*NOT_UNDERSTOOD):
            dump.neighbours(bodies, {0: "kvb0"}, family)


@pytest.mark.parametrize("error", [struct.error("cut"), KeyError(3), IndexError()])
def test_what_the_kernel_tells_and_nobody_understands_is_an_error_of_the_kernel(error: Exception) -> None:
    def fails() -> None:
        raise error

    async def asked() -> None:
        with ThreadPoolExecutor(1) as executor:
            await linux._run(executor, fails)

    with pytest.raises(OSError, match="not understood") as told:
        asyncio.run(asked())
    assert told.value.errno == errno.EBADMSG


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2**17), st.sampled_from([16, 17, 20, 24, 28, 80, 81, SUBSYSTEM | 3, SUBSYSTEM | 6]), HEADS
    ),
    max_size=4,
)


@given(EVENTS, ATTRIBUTES, st.booleans())
def test_any_event_is_a_hint_at_most(heads: list[tuple[int, int, bytes]], rest: bytes, is_honest: bool) -> None:
    noticed = Noticed(Interest({1: "kvb0"}))
    data = b""
    for length, kind, head in heads:
        body = head + rest
        told = 16 + len(body) if is_honest else length
        data += HEADER.pack(told, kind, 0, 0, 0) + body
    noticed.datagram(data)
    noticed.taken()


class Deaf:
    """A socket: it takes what is sent, and what it answers is nonsense."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def send(self, _: bytes) -> None:
        return None

    def recv(self, _: int) -> bytes:
        return self.data

    def settimeout(self, _: float) -> None:
        return None


@given(st.binary(min_size=1, max_size=60) | st.integers(0, 15).map(lambda n: HEADER.pack(n, 3, 0, 1, 0)))
def test_a_header_that_lies_about_its_length_ends_the_dump(data: bytes) -> None:
    netlink = Netlink.__new__(Netlink)
    told = iter([data, HEADER.pack(20, 3, 0, 1, 0) + bytes(4)])
    netlink._socket = Deaf(b"")  # type: ignore[assignment]
    netlink._socket.recv = lambda _: next(told)  # type: ignore[method-assign]
    netlink._sequence = 0
    with contextlib.suppress(*NOT_UNDERSTOOD, StopIteration):
        netlink._dump_once(m.dump_links())


# other people's firewalls

RULE = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["ip", "inet"]) | anything,
        "table": st.just("filter") | anything,
        "chain": st.just("FORWARD") | anything,
        "handle": st.integers(0, 9) | anything,
        "expr": st.lists(
            st.fixed_dictionaries(
                {"match": st.fixed_dictionaries({"op": texts, "left": anything, "right": anything}) | anything}
            )
            | objects("drop", "accept", "jump", "vmap", "xt", "counter", "limit", "goto")
            | anything,
            max_size=4,
        )
        | anything,
    }
)
LISTING = st.lists(
    RULE.map(lambda rule: {"rule": rule})
    | st.fixed_dictionaries({"chain": objects("family", "table", "name", "hook", "prio", "policy", "dev", "type")})
    | st.fixed_dictionaries({"set": objects("family", "table", "name", "elem")})
    | st.just({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "prio": 0}})
    | anything,
    max_size=6,
)
PACKET = Packet(4, "tcp", "10.1.0.2", "10.1.0.3", 80)


@given(LISTING)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_listing_of_nft_is_read_or_not_of_nft(listing: list[Any]) -> None:
    with contextlib.suppress(*SHAPES):
        chains = nft.chains_of({"nftables": listing})
        drops(PACKET, "ip", "forward", chains)


WORDS = st.sampled_from(
    [
        *("-A", "FORWARD", "-N", "X", "-P", "DROP", "-s", "10.0.0.0/8", "-j", "-g", "!", "--dport", "80:x", "--mark"),
        *("0xz/", "-m", "comment", "--comment", "'", '"', "--icmp-type", "8", "*filter", ":FORWARD", "ACCEPT", "-p"),
    ]
)


@given(st.lists(st.lists(WORDS | texts, max_size=8).map(" ".join), max_size=6).map("\n".join))
def test_any_listing_of_iptables_is_read(text: str) -> None:
    with contextlib.suppress(*SHAPES):
        chains = iptables.chains_of(text, "ip", "iptables-nft")
        drops(PACKET, "ip", "forward", chains)


# words of people


@given(
    st.tuples(st.sampled_from(["etcd", "consul", "zk", "http", "https", "unix", "sqlite", ""]), texts, texts).map(
        lambda of: f"{of[0]}://{of[1]}/{of[2]}"
    )
    | st.tuples(st.sampled_from(["http://[", "etcd://a:99999", "etcd://u:p@", "zk://,,"]), texts).map("".join)
)
def test_any_url_is_one_or_refused(url: str) -> None:
    with contextlib.suppress(KvnetError):
        parse_server_url(url, {})
    with contextlib.suppress(KvnetError, ValueError):
        Target.parse_all(url)


@given(texts | st.from_regex(r"[0-9.:\[\]a-f]{0,30}(/(tcp|udp|x))?", fullmatch=True))
def test_any_word_on_the_command_line_is_a_value_or_refused(text: str) -> None:
    for kind in (PairType("KEY=VALUE"), ChangeType(), DurationType()):
        with contextlib.suppress(click.UsageError, KvnetError):
            kind.convert(text, None, None)
    with contextlib.suppress(KvnetError):
        parse_publish(text)


@given(texts | st.from_regex(r"kvnet_[0-9a-f]{11,13}_[A-Za-z0-9_-]{42,44}\n?", fullmatch=True))
def test_any_text_is_a_token_of_exact_shape_or_none(text: str) -> None:
    found = parse_token(text)
    assert found is None or str(found) == text


def test_lies_are_the_same_for_the_same_seed() -> None:
    from tests.input.hostile import lies

    value = codec.encode(examples()[3])
    assert list(lies(value, random.Random(1), 5)) == list(lies(value, random.Random(1), 5))

"""What is fuzzed: for each reader of strangers' bytes, what it may do with any of them.

Each target is made once a process and then called with one input after the other. It raises AssertionError, or what the
reader should not have let out: either is a find.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from kvnet import codec, keys, places, sentinel
from kvnet.claims import AddressClaim, HeldPorts, SubnetClaim
from kvnet.errors import StoreBroken
from kvnet.http import Connection, Lost, Target
from kvnet.marks import Accepted, Cluster, Restoring
from kvnet.model import (
    Alive,
    Block,
    Driver,
    Endpoint,
    Host,
    Inventory,
    JournalEntry,
    Network,
    Observed,
    Pool,
    Reclaim,
    Subnet,
)
from kvnet.questions import Answer, Question
from kvnet.security import Role, Token

Check = Callable[[bytes], None]
SOURCES = ("10.1.0.2", "10.1.0.99", "127.0.0.1")
MODELS: tuple[tuple[str, type[Any]], ...] = (
    (keys.CLUSTER, Cluster),
    (keys.ACCEPTED, Accepted),
    (keys.RESTORING, Restoring),
    (keys.network("0123456789ab"), Network),
    (keys.endpoint("0123456789ab", "e1"), Endpoint),
    ("addresses/0123456789ab/10.1.0.2", AddressClaim),
    ("subnets/10.1.0.0_24", SubnetClaim),
    ("blocks/0123456789ab/10.1.0.0_26", Block),
    ("ports/h1/tcp_8064", HeldPorts),
    (keys.host("h1"), Host),
    (keys.inventory("h1"), Inventory),
    (keys.alive("h1"), Alive),
    (keys.observed("h1"), Observed),
    (keys.reclaim("h1"), Reclaim),
    (keys.pool("p"), Pool),
    (keys.token("0123456789ab"), Token),
    (keys.question("h1", "q1"), Question),
    (keys.answer("q1"), Answer),
    ("journal/1-a", JournalEntry),
)


class Made(NamedTuple):
    check: Check
    seeds: list[bytes]
    close: Callable[[], None] = lambda: None


# stored values


def stored() -> Made:
    def check(data: bytes) -> None:
        if not data:
            return
        key, model = MODELS[data[0] % len(MODELS)]
        try:
            value = sentinel.decode(data[1:]) if key.startswith(keys.META) else codec.decode(model, data[1:])
            places.require_place(key, value)
        except StoreBroken:
            return
        written = codec.encode(value)
        assert codec.decode(type(value), written) == value, (value, written)
        assert codec.unstamped(codec.stamped(written, "r1")) == written

    return Made(check, [bytes((n,)) + codec.encode(example) for n, example in enumerate(examples())])


def examples() -> list[Any]:
    network, cidr = "0123456789ab", ipaddress.ip_network("10.1.0.0/24")
    address = ipaddress.ip_address("10.1.0.2")
    found: dict[type[Any], Any] = {
        Network: Network(network, "n", Driver.OVERLAY, (Subnet(cidr, address, None, {"a": address + 1}),), 1.5, vni=1),
        Endpoint: Endpoint("e1", network, "h1", "web", (address,), "02:00:00:00:00:01", 1.5, labels={"a": "b"}),
        Pool: Pool("p", ipaddress.ip_network("10.0.0.0/8"), 24),
        Host: Host("h1", address, 1500),
        Block: Block(network, ipaddress.ip_network("10.1.0.0/26"), "h1", 1.0),
        Token: Token("0123456789ab", "t", Role.ADMIN, 1.0, "x", hash="0" * 64),
    }
    return [found.get(model) or _blank(model) for _, model in MODELS]


def _blank(model: type[Any]) -> Any:
    plain: dict[str, Any] = {"v": codec.SCHEMA}
    for one in dataclasses.fields(model):
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            kind = str(one.type).partition(" ")[0]
            plain[one.name] = {"float": 1.5, "int": 1, "str": "h1", "ClaimKind": "endpoint"}.get(kind, [])
    return codec.from_json(model, plain)


# names


def names() -> Made:
    """The name service of a host, asked by a workload, by a stranger, and by the host itself."""
    from tests.unit.worker.dns.kit import Cluster as Known
    from worker.dns.service import NameService
    from worker.log import Log
    from worker.ports import Time

    known = Known()
    network = known.add_network("web")
    known.add(network, "a", 2)
    known.add(network, "b", 3, host="h2", aliases=("db",))
    time = Time(lambda: 0.0, lambda: 0.0, asyncio.sleep, random.Random(1))
    service = NameService(
        ipaddress.IPv4Address("127.0.0.1"), "h1", known, lambda: known.records.values(), time=time, log=Log()
    )

    def check(data: bytes) -> None:
        if not data:
            return
        source, over_tcp = SOURCES[(data[0] >> 1) % len(SOURCES)], bool(data[0] & 1)
        answer = service.asked(data[1:], source, over_tcp)
        if answer is None:
            return
        if not isinstance(answer, bytes):
            answer.close()  # others would be asked
            return
        assert answer[:2] == data[1:3], "another question's answer"
        assert answer[2] & 0x80, "no answer"
        assert len(answer) <= (65_535 if over_tcp else 1232), len(answer)

    import dns.message

    asked = [("a.web", "A"), ("db", "AAAA"), ("3.0.1.10.in-addr.arpa", "PTR"), ("a.web", "ANY"), ("x.y", "TXT")]
    wires = [dns.message.make_query(name, kind, use_edns=n % 2 == 0).to_wire() for n, (name, kind) in enumerate(asked)]
    loop = b"\0\0\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
    return Made(check, [*(b"\0" + wire for wire in wires), *(b"\1" + wire for wire in wires), b"\0" + loop])


def resolver() -> Made:
    """What a resolver of the host's answers: whether it is an answer to the question, and what it says."""
    import dns.message

    from worker.dns import answers
    from worker.dns.forward import is_answer

    question = dns.message.make_query("a.example.com", "A", id=7).to_wire()

    def check(data: bytes) -> None:
        if is_answer(data, question):
            answers.is_there(data)
            answers.is_helpless(data)

    response = dns.message.make_response(dns.message.from_wire(question)).to_wire()
    return Made(check, [response, question, response[:12], b"\0\7\x80\3" + bytes(8)])


# the gateway


def gateway() -> Made:
    """Its routes over a store in memory: never a server's error but what the store itself says."""
    from fastapi import FastAPI

    from backends.memory import MemoryStore
    from controller.api.store import router

    loop = asyncio.new_event_loop()
    store = MemoryStore()
    app = FastAPI()
    app.include_router(router(store, stopping=asyncio.Event(), bookmark_every_s=0.01))
    routes = ("get", "list", "commit", "watch", "sessions", "sessions/x/refresh")

    def check(data: bytes) -> None:
        if not data:
            return
        path = routes[data[0] % len(routes)]
        loop.run_until_complete(asyncio.wait_for(_asked(app, f"/v1/store/{path}", data[1:]), 5))

    bodies = (
        (0, b'{"key":"hosts/a"}'),
        (1, b'{"prefix":"hosts/"}'),
        (2, b'{"checks":[{"check":"absent","key":"hosts/a"},{"check":"unchanged","key":"hosts/b","version":3}],'),
        (2, b'{"checks":[],"writes":[{"write":"put","key":"hosts/a","value":"eA=="},{"write":"delete","key":"x/y"}]}'),
        (2, b'{"checks":[],"writes":[{"write":"put","key":"hosts/a","value":"eA==","session":"s"}]}'),
        (3, b'{"prefix":"hosts/","after":0}'),
        (4, b'{"ttl_s":15.0,"resume":"x"}'),
        (5, b'{"ttl_s":15}'),
        (0, b'{"key":"\\ud800"}'),
        (0, b"[" * 2000),
    )
    return Made(check, [bytes((route,)) + body for route, body in bodies], loop.close)


class _Enough(Exception):
    """The rest of an answer that never ends."""


async def _asked(app: Any, path: str, body: bytes) -> None:
    status = 0
    ended = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not ended.is_set():
            ended.set()
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.sleep(0.002)
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    assert status in (200, 201, 204, 403, 404, 409, 410, 413, 422), status


# answers of a controller


def http() -> Made:
    """What the lean client makes of an answer: a status and a body, or one of the errors that it tells as `Lost`."""
    loop = asyncio.new_event_loop()

    async def read(data: bytes) -> int:
        reader = asyncio.StreamReader(limit=64 * 1024)
        reader.feed_data(data)
        reader.feed_eof()
        writer: Any = SimpleNamespace(close=lambda: None, is_closing=lambda: False)
        connection = Connection(reader, writer, Target("h"))
        _, headers = await connection.head()
        return sum([len(piece) async for piece in connection.pieces(headers)])

    def check(data: bytes) -> None:
        try:
            length = loop.run_until_complete(read(data))
        except (Lost, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return
        assert length <= len(data)

    seeds = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest",
        b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nrest",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ]
    return Made(check, seeds, loop.close)


TARGETS: Mapping[str, Callable[[], Made]] = {
    "codec": stored,
    "dns": names,
    "resolver": resolver,
    "gateway": gateway,
    "http": http,
}

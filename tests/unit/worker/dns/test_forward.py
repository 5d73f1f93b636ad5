"""What is not ours to say: asked of the host's resolvers, within bounds, and never in a circle."""

from __future__ import annotations

import time
from pathlib import Path

import dns.flags
import dns.rcode
import pytest

from tests.unit.worker.dns.kit import Cluster, running, texts, until, upstream
from worker.dns.forward import HURRY_S, PATIENCE_S, TURN_S, is_answer, nameservers

pytestmark = pytest.mark.anyio
STRANGER = "172.17.0.2"
KNOWN = {("www.example.com", "A"): ["192.0.2.80"], ("go.dev", "A"): ["192.0.2.81"], ("dev", "SOA"): ["a. b. 1 1 1 1 1"]}
DEAD = "127.0.0.2"  # nobody is bound there: refused at once


async def test_strangers_and_workloads_get_the_resolver_s_answer(tmp_path: Path) -> None:
    cluster = Cluster()
    source = str(cluster.add(cluster.add_network("shop"), "web", 2).addresses[0])
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, cluster, resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        for asker in (source, STRANGER):
            assert texts(await server.ask("www.example.com", source=asker)) == ["192.0.2.80"]
            assert (await server.ask("no.example.com", source=asker)).rcode() == dns.rcode.NXDOMAIN


async def test_a_name_without_a_dot_is_ours_first_and_then_the_resolver_s(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    source = str(cluster.add(shop, "web", 2).addresses[0])
    known = {("nas", "A"): ["192.0.2.7"], ("web", "A"): ["192.0.2.8"]}
    async with (
        upstream(known=known) as resolver,
        running(tmp_path, cluster, resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        for asker in (source, STRANGER):
            assert texts(await server.ask("NAS", source=asker)) == ["192.0.2.7"]
        assert texts(await server.ask("web", source=source)) == ["10.1.0.2"]
        assert texts(await server.ask("web", source=STRANGER)) == ["192.0.2.8"]
        assert (await server.ask("nas.kvnet", source=source)).rcode() == dns.rcode.NXDOMAIN
        for _ in range(3):
            absent = await server.ask("db", source=source)
            assert (absent.rcode(), absent.authority) == (dns.rcode.NXDOMAIN, [])
        assert resolver.heard.count(("db", "A")) == 1, "nobody is asked again so soon"
        cluster.add(shop, "db", 3)
        assert texts(await server.ask("db", source=source)) == ["10.1.0.3"]


async def test_nobody_waits_long_for_a_name_without_a_dot(tmp_path: Path) -> None:
    source_of = Cluster()
    source = str(source_of.add(source_of.add_network("shop"), "web", 2).addresses[0])
    async with (
        upstream(silent=True) as resolver,
        running(tmp_path, source_of, resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        began = time.monotonic()
        assert (await server.ask("nosuch", source=source)).rcode() == dns.rcode.NXDOMAIN
        assert time.monotonic() - began < PATIENCE_S - TURN_S
        heard = len(resolver.heard)
        assert (await server.ask("nosuch", source=source)).rcode() == dns.rcode.NXDOMAIN
        assert len(resolver.heard) == heard


async def test_a_network_called_like_a_domain_hides_nothing_of_it(tmp_path: Path) -> None:
    cluster = Cluster()
    source = str(cluster.add(cluster.add_network("dev"), "web", 2).addresses[0])
    other = str(cluster.add(cluster.add_network("back"), "web", 2).addresses[0])
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, cluster, resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        assert texts(await server.ask("go.dev", source=source)) == ["192.0.2.81"]
        assert texts(await server.ask("web.dev", source=source)) == ["10.1.0.2"]
        for _ in range(3):
            assert (await server.ask("nosuch.back", source=other)).rcode() == dns.rcode.NXDOMAIN
        assert resolver.heard.count(("back", "SOA")) == 1
        assert ("nosuch.back", "A") not in resolver.heard


async def test_over_tcp_where_the_answer_is_too_long(tmp_path: Path) -> None:
    async with (
        upstream(known=KNOWN, cut=True) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        assert (await server.ask("www.example.com", source=STRANGER)).flags & dns.flags.TC
        assert texts(await server.ask("www.example.com", source=STRANGER, tcp=True)) == ["192.0.2.80"]


async def test_the_next_resolver_is_asked_when_one_refuses_fails_or_is_silent(tmp_path: Path) -> None:
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, Cluster(), resolvers=[DEAD, "127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        began = time.monotonic()
        assert texts(await server.ask("www.example.com", source=STRANGER)) == ["192.0.2.80"]
        assert time.monotonic() - began < TURN_S, "refused at once, so asked at once"


async def test_when_nobody_answers_that_is_told_in_time_and_sooner_the_next_time(tmp_path: Path) -> None:
    async with (
        upstream(silent=True) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        for limit in (PATIENCE_S, HURRY_S):
            began = time.monotonic()
            assert (await server.ask("www.example.com", source=STRANGER)).rcode() == dns.rcode.SERVFAIL
            assert time.monotonic() - began < limit + 0.4
        resolver.silent = False
        resolver.known.update(KNOWN)
        assert texts(await server.ask("www.example.com", source=STRANGER)) == ["192.0.2.80"]


async def test_without_any_resolver_it_fails_at_once_and_a_new_one_is_found(tmp_path: Path) -> None:
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, Cluster(), resolver_port=resolver.port) as server,
    ):
        began = time.monotonic()
        assert (await server.ask("www.example.com", source=STRANGER)).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - began < 0.3
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")

        found: list[str] = []

        async def look() -> None:
            found[:] = texts(await server.ask("www.example.com", source=STRANGER))

        while not found and time.monotonic() - began < 5:
            await look()
        assert found == ["192.0.2.80"]


async def test_a_failure_of_the_only_resolver_is_passed_on(tmp_path: Path) -> None:
    async with (
        upstream(rcode=dns.rcode.REFUSED) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        assert (await server.ask("www.example.com", source=STRANGER)).rcode() == dns.rcode.REFUSED


async def test_the_host_itself_is_never_led_in_a_circle(tmp_path: Path) -> None:
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        refused = await server.ask("www.example.com", source="127.0.0.1")
        assert refused.rcode() == dns.rcode.REFUSED
        assert resolver.heard == []


async def test_each_question_goes_out_under_an_id_of_its_own(tmp_path: Path) -> None:
    async with (
        upstream(known=KNOWN) as resolver,
        running(tmp_path, Cluster(), resolvers=["127.0.0.1"], resolver_port=resolver.port) as server,
    ):
        for _ in range(20):
            await server.ask("www.example.com", source=STRANGER, id=7)
        await until(lambda: len(resolver.ids) == 20)
        assert len(set(resolver.ids)) > 15


def test_only_nameservers_count_three_at_most() -> None:
    text = "# x\nnameserver 1.1.1.1\nnameserver\nsearch a b\nnameserver ::1\nnameserver 1.1.1.1\n"
    text += "nameserver 3.3.3.3\nnameserver 4.4.4.4\n"
    assert nameservers(text) == ["1.1.1.1", "::1", "3.3.3.3"]


def test_an_answer_is_one_to_the_very_question() -> None:
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
    answer = question[:2] + b"\x81\x80" + question[4:]
    assert is_answer(answer, question)
    assert is_answer(answer.replace(b"a", b"A"), question)
    assert not is_answer(b"\x00\x00" + answer[2:], question)
    assert not is_answer(answer.replace(b"a", b"b"), question)
    assert not is_answer(question, question)
    assert not is_answer(answer[:11], question)

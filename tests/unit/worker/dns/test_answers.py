"""The messages: every holder in another order each time, cut where they do not fit, and nothing kept too long."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.dns.kit import THERE, Cluster, running, texts
from worker.dns.answers import Malformed, understood

pytestmark = pytest.mark.anyio


async def test_every_kind_of_record(tmp_path: Path) -> None:
    cluster = Cluster()
    asker = cluster.add(cluster.add_network("shop"), "web", 2)
    cluster.versions[asker.id] = 77
    source = str(asker.addresses[0])
    async with running(tmp_path, cluster) as server:
        assert texts(await server.ask("web", "A", source=source)) == ["10.1.0.2"]
        assert texts(await server.ask("WEB.shop", "AAAA", source=source)) == ["fd00:1::2"]
        assert texts(await server.ask("web", "ANY", source=source)) == ["10.1.0.2", "fd00:1::2"]
        told = await server.ask("web.shop.kvnet", "TXT", source=source)
        assert texts(told) == ['"id=shop-web-2 host=h1 version=77"']
        for address in asker.addresses:
            assert texts(await server.ask(address.reverse_pointer, "PTR", source=source)) == ["web.shop."]


async def test_another_type_of_a_known_name_is_empty_and_not_absent(tmp_path: Path) -> None:
    cluster = Cluster()
    only4 = cluster.add_network("only4", "10.9.0.0/24")
    source = str(cluster.add(only4, "web", 2).addresses[0])
    async with running(tmp_path, cluster) as server:
        for kind in ("AAAA", "MX", "SRV", "HTTPS"):
            response = await server.ask("web", kind, source=source)
            assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])
            assert response.flags & dns.flags.AA
        absent = await server.ask("nosuch", "AAAA", source=source)
        assert (absent.rcode(), absent.answer, absent.authority) == (dns.rcode.NXDOMAIN, [], [])


async def test_holders_take_turns_to_be_the_first(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    source = str(cluster.add(shop, "web", 2).addresses[0])
    for number in range(3, 8):
        cluster.add(shop, f"db{number}", number, THERE, aliases=("db",))
    everyone = {f"10.1.0.{number}" for number in range(3, 8)}
    async with running(tmp_path, cluster) as server:
        answers = [texts(await server.ask("db", source=source)) for _ in range(10)]
    assert all(set(answer) == everyone for answer in answers)
    firsts = [answer[0] for answer in answers]
    assert all(firsts.count(address) == 2 for address in everyone)


async def test_an_answer_follows_what_changes(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    source = str(cluster.add(shop, "web", 2).addresses[0])
    async with running(tmp_path, cluster) as server:
        assert (await server.ask("db", source=source)).rcode() == dns.rcode.NXDOMAIN
        db = cluster.add(shop, "db", 3, THERE)
        for _ in range(2):
            assert texts(await server.ask("db", source=source)) == ["10.1.0.3"]
        cluster.remove(db)
        assert (await server.ask("db", source=source)).rcode() == dns.rcode.NXDOMAIN


async def test_what_is_too_long_for_udp_is_cut_and_whole_over_tcp(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    source = str(cluster.add(shop, "web", 2).addresses[0])
    for number in range(3, 203):
        cluster.add(shop, f"db{number}", number, THERE, aliases=("db",))
    async with running(tmp_path, cluster) as server:
        for limits in ({}, {"use_edns": 0, "payload": 1232}, {"use_edns": 0, "payload": 60_000}):
            cut = await server.ask("db", source=source, **limits)
            assert cut.flags & dns.flags.TC
            assert len(cut.to_wire()) <= (1232 if limits else 512)
        whole = await server.ask("db", source=source, tcp=True)
        assert not whole.flags & dns.flags.TC
        assert len(texts(whole)) == 200


async def test_what_cannot_be_answered_is_told_so(tmp_path: Path) -> None:
    cluster = Cluster()
    asker = cluster.add(cluster.add_network("shop"), "web", 2)
    source = str(asker.addresses[0])
    query = dns.message.make_query("web", "A").to_wire()
    async with running(tmp_path, cluster) as server:

        def rcode(data: bytes) -> int | None:
            answer = server.service.asked(data, source, False)
            assert answer is None or isinstance(answer, bytes)
            return None if answer is None else dns.message.from_wire(answer).rcode()

        assert rcode(query[:2] + bytes([query[2] | 0x28]) + query[3:]) == dns.rcode.NOTIMP
        assert rcode(query[:-2] + b"\x00\x03") == dns.rcode.REFUSED, "class CHAOS"
        assert rcode(query[:4] + b"\x00\x02" + query[6:]) == dns.rcode.FORMERR
        assert rcode(query[:-3]) == dns.rcode.FORMERR
        assert rcode(query[:2] + bytes([query[2] | 0x80]) + query[3:]) is None, "an answer is no question"
        assert rcode(query[:11]) is None


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_do_any_harm(data: bytes) -> None:
    try:
        understood(data)
    except Malformed as malformed:
        said = malformed.answer
    else:
        said = None
    assert said is None or said[:2] == data[:2]


async def test_the_id_is_the_asker_s_in_whatever_comes_from_memory(tmp_path: Path) -> None:
    cluster = Cluster()
    source = str(cluster.add(cluster.add_network("shop"), "web", 2).addresses[0])
    async with running(tmp_path, cluster) as server:
        for number in (1, 2, 65_535):
            query = dns.message.make_query("web", "A", id=number).to_wire()
            answer = server.service.asked(query, source, False)
            assert isinstance(answer, bytes)
            assert dns.message.from_wire(answer).id == number


async def test_the_own_host_and_loopback(tmp_path: Path) -> None:
    cluster = Cluster()
    source = str(cluster.add(cluster.add_network("shop"), "web", 2).addresses[0])
    async with running(tmp_path, cluster) as server:
        assert texts(await server.ask("host.docker.internal", source=source)) == ["10.1.0.1"]
        assert texts(await server.ask("host.kvnet", "AAAA", source=source)) == [str(ip_address("fd00:1::1"))]
        assert texts(await server.ask("localhost", source="172.17.0.9")) == ["127.0.0.1"]

"""What the connectivity test says between endpoints: whose fault it is, and where packets were seen last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import NotFound
from tests.lab.connectivity.asking import ask, opened, pair, run
from tests.lab.connectivity.test_hosts import FABRIC, plant, pull_out
from tests.lab.worker.bench import attached

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

DUAL: dict[str, Any] = {"subnets": [{"cidr": "10.77.0.0/24"}, {"cidr": "fd00:77::/64"}]}
BOTH = {"c1": "h1", "c2": "h2"}


async def test_a_workload_that_drops_pings_is_told_from_a_network_that_does(tmp_path: Path) -> None:
    async with opened(tmp_path, network=DUAL) as lab:
        plant(lab.netns_of("c2"), "input", "meta l4proto icmp drop")
        plant(lab.netns_of("c2"), "input", "icmpv6 type { echo-request, echo-reply } drop", "ip6")

        answer = await ask(lab, between="endpoints")

        for family, how in ((4, "ARP"), (6, "neighbour discovery")):
            one = pair(answer, "c1", "c2", family)
            assert (one["status"], one["code"]) == ("ok", "answers-neighbours"), one
            assert how in one["detail"]
            assert pair(answer, "c2", "c1", family)["status"] == "ok", "its own pings are answered and dropped inside"
        assert answer["ok"]
        assert answer["links"] == []


async def test_a_firewall_of_a_host_between_is_named_by_where_packets_were_seen_last(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        plant(lab.hosts["h2"].netns, "forward", "ether type { ip, arp } drop", "bridge")
        answer = await ask(lab, between="endpoints", networks=["n1"])
        there, back = pair(answer, "c1", "c2"), pair(answer, "c2", "c1")
        assert (there["status"], there["code"]) == ("blocked", "lost")
        assert "on h2, coming in by kvx" in there["detail"]
        assert there["fix"] == "kvnet trace n1/c1 n1/c2"
        assert (back["status"], back["code"]) == ("blocked", "lost")
        assert "on h2" in back["detail"]
        pull_out(lab.hosts["h2"].netns, "bridge")

        plant(lab.hosts["h2"].netns, "input", "udp dport 4789 drop")
        answer = await ask(lab)
        there = pair(answer, "c1", "c2")
        assert there["code"] == "lost"
        assert "on h1, leaving by kvx" in there["detail"]
        assert pair(answer, "c2", "c1")["code"] == "answer-lost", "its requests arrive; the answers meet the firewall"
        assert answer["failures"] == 3


async def test_an_interface_that_is_down_in_the_workload_is_no_fault_of_the_way(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        run(lab.netns_of("c2"), "ip addr flush dev eth0")

        answer = await ask(lab, between="endpoints")

        there, back = pair(answer, "c1", "c2"), pair(answer, "c2", "c1")
        assert (there["status"], there["code"]) == ("no-answer", "endpoint-silent")
        assert (back["status"], back["code"]) == ("blocked", "no-route-inside")


async def test_small_packets_that_pass_where_full_ones_do_not_are_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        run(FABRIC, "ip link set kvehost2 mtu 1412")

        answer = await ask(lab, between="endpoints")

        there = pair(answer, "c1", "c2")
        assert there["status"] == "mtu"
        assert there["full"] == {"size": 1450, "sent": 2, "answered": 0}
        assert there["echo"] == {"sent": 3, "answered": 3}
        assert "1450 bytes" in there["detail"]
        assert "lost on the way back to h1" in there["detail"], "h1's are fragmented"
        assert "do not arrive at h1" in pair(answer, "c2", "c1")["detail"]


async def test_one_endpoint_of_each_host_stands_for_all_unless_all_are_asked_for(tmp_path: Path) -> None:
    places = {"a1": "h1", "a2": "h1", "a3": "h1", "b1": "h2", "b2": "h2"}
    async with opened(tmp_path, places=places) as lab:
        few = await ask(lab, between="endpoints")
        names = {(one["from"]["name"], one["to"]["name"]) for one in few["endpoints"]}
        assert names == {("a1", "a2"), ("b1", "b2"), ("a1", "b1"), ("b1", "a1")}
        assert few["ok"]

        every = await ask(lab, between="endpoints", all_endpoints=True)
        assert len(every["endpoints"]) == 5 * 4
        assert every["ok"]

        here = await ask(lab, hosts=["h1"], all_endpoints=True)
        assert {one["from"]["host"] for one in here["endpoints"]} == {"h1"}
        assert len(here["endpoints"]) == 6
        assert here["links"] == []


async def test_every_kind_of_network_is_tested_as_far_as_it_reaches(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        await lab.client.create_network({"name": "r1", "driver": "routed", "subnets": [{"cidr": "10.78.0.0/16"}]})
        await lab.client.create_network({"name": "b1", "driver": "bridge", "subnets": [{"cidr": "10.79.0.0/24"}]})
        await lab.client.create_network(
            {"name": "o1", "driver": "overlay", "subnets": [{"cidr": "10.80.0.0/24"}], "icc": False}
        )
        for network in ("r1", "b1", "o1"):
            await attached(lab, network, BOTH)
        await attached(lab, "b1", {"c3": "h1"})

        answer = await ask(lab)

        tried = {(one["network"]["name"], one["from"]["name"], one["to"]["name"]) for one in answer["endpoints"]}
        assert tried == {
            *(("n1", *one) for one in (("c1", "c2"), ("c2", "c1"))),
            *(("r1", *one) for one in (("c1", "c2"), ("c2", "c1"))),
            ("b1", "c1", "c3"),
        }
        assert answer["ok"], [one for one in answer["endpoints"] if one["status"] != "ok"]
        assert answer["not_tried"] == [{"what": "endpoints of networks whose icc is off", "count": 2}]
        routed = next(one for one in answer["endpoints"] if one["network"]["name"] == "r1")
        assert routed["full"]["size"] == 1500

        plant(lab.netns_of("c2"), "input", "meta l4proto icmp drop")
        answer = await ask(lab, networks=["r1"])
        assert pair(answer, "c1", "c2")["code"] == "delivered"


async def test_an_endpoint_without_an_interface_is_not_tried_and_said_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        await lab.client.create_endpoint("n1", {"name": "paper", "host": "h2"})

        answer = await ask(lab, all_endpoints=True)

        assert answer["not_tried"] == [{"what": "endpoints without an interface", "count": 1}]
        assert answer["ok"]


async def test_what_is_not_there_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        with pytest.raises(NotFound, match="h9"):
            await ask(lab, hosts=["h1", "h9"])
        with pytest.raises(NotFound, match="n9"):
            await ask(lab, networks=["n9"])

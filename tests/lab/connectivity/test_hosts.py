"""What the connectivity test says between hosts, with faults planted between and on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import Lab
from tests.lab.connectivity.asking import ask, link, opened, run

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

FABRIC = namespaces.FOLDER / "fabric"
ROUTER = namespaces.FOLDER / "router"


def plant(where: Path, hook: str, rule: str, family: str = "inet") -> None:
    """A firewall of somebody else's."""
    chain = f"{{ type filter hook {hook} priority 0 ; policy accept ; }}"
    run(where, f"nft 'add table {family} foe; add chain {family} foe c {chain}; add rule {family} foe c {rule}'")


def pull_out(where: Path, family: str = "inet") -> None:
    run(where, f"nft delete table {family} foe")


async def between(lab: Lab) -> tuple[dict, dict]:  # type: ignore[type-arg]
    answer = await ask(lab, between="hosts")
    return link(answer, "h1", "h2"), link(answer, "h2", "h1")


async def test_where_all_is_well_it_says_so_in_both_directions(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        answer = await ask(lab)

        assert answer["ok"]
        assert answer["failures"] == 0
        assert [one["code"] for one in answer["links"]] == ["reached", "reached"]
        assert [one["code"] for one in answer["endpoints"]] == ["reached", "reached"]
        assert answer["links"][0]["mtu"] == {"needed": 1500, "passes": 1500, "told_by": None}
        assert answer["links"][0]["rtt_ms"]["min"] > 0
        assert answer["not_tried"] == []


async def test_a_firewall_that_stops_the_tunnels_one_way_is_found_on_the_side_that_has_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        h1, h2 = lab.hosts["h1"].netns, lab.hosts["h2"].netns

        plant(h2, "input", "udp dport 4789 drop")
        there, back = await between(lab)
        assert (there["status"], there["code"]) == ("blocked", "dropped-by-receiver")
        assert "kvnet doctor h2" in there["fix"]
        assert back["status"] == "ok"
        pull_out(h2)

        plant(h2, "input", "udp dport 4789 reject")
        there, back = await between(lab)
        assert there["code"] == "dropped-by-receiver"
        assert "port unreachable" in there["detail"]
        assert back["status"] == "ok"
        pull_out(h2)

        plant(h1, "output", "udp dport 4789 drop")
        there, back = await between(lab)
        assert there["code"] == "refused-by-sender"
        assert back["status"] == "ok"
        pull_out(h1)

        plant(h1, "postrouting", "udp dport 4789 drop")
        there, back = await between(lab)
        assert there["code"] in ("dropped-by-sender", "refused-by-sender")
        assert back["status"] == "ok"
        pull_out(h1)

        plant(FABRIC, "forward", "ip saddr 198.18.0.1 udp dport 4789 drop", "bridge")
        there, back = await between(lab)
        assert there["code"] == "filtered-on-the-way"
        assert back["status"] == "ok"
        pull_out(FABRIC, "bridge")

        plant(FABRIC, "forward", "ip saddr 198.18.0.1 drop", "bridge")
        there, back = await between(lab)
        assert there["code"] in ("nothing-arrives", "next-hop-silent")
        assert back["status"] == "ok", "its answers to ping do not arrive, its tunnel packets do"
        pull_out(FABRIC, "bridge")

        there, back = await between(lab)
        assert there["status"] == back["status"] == "ok"


async def test_a_host_that_does_not_answer_ping_is_no_fault(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        plant(lab.hosts["h2"].netns, "input", "icmp type echo-request drop")

        there, back = await between(lab)

        assert (there["status"], there["code"]) == ("ok", "no-echo")
        assert back["status"] == "ok"


async def test_packets_that_get_lost_now_and_then_are_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        plant(lab.hosts["h2"].netns, "input", "udp dport 4789 numgen inc mod 4 0 drop")

        there, back = await between(lab)

        assert there["status"] == "loss"
        assert 14 <= there["tunnel"]["through"] <= 16, "the large ones count too"
        assert back["status"] == "ok"


async def test_a_black_hole_for_large_packets_is_measured_to_the_byte(tmp_path: Path) -> None:
    """A switch between them passes less, and says nothing."""
    async with opened(tmp_path) as lab:
        run(FABRIC, "ip link set kvehost2 mtu 1412")

        there, back = await between(lab)

        assert (there["status"], there["mtu"]["passes"], there["mtu"]["told_by"]) == ("mtu", 1412, None)
        assert "nobody on the way says so" in there["detail"]
        assert "1412" in there["fix"]
        assert back["status"] == "mtu"
        assert back["mtu"]["passes"] in (1412, 1416), "a veth lets a VLAN's header pass"


async def test_a_router_that_says_how_much_passes_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path, segments={"h2": 1}) as lab:
        links = run(ROUTER, "ip -o -4 addr show")
        narrow = next(line.split()[1] for line in links.splitlines() if "198.18.31.254" in line)
        run(ROUTER, f"ip link set {narrow} mtu 1400")

        there, _ = await between(lab)

        assert (there["status"], there["mtu"]["passes"], there["mtu"]["told_by"]) == ("mtu", 1400, "198.18.15.254")
        assert "198.18.15.254" in there["detail"]


async def test_a_host_whose_worker_is_dead_does_not_answer_and_the_others_are_tested(tmp_path: Path) -> None:
    async with opened(tmp_path, hosts=3) as lab:
        worker = lab.hosts["h3"].worker
        assert worker is not None
        await worker.kill()

        answer = await ask(lab)

        assert not answer["ok"]
        assert link(answer, "h1", "h2")["status"] == "ok"
        for pair in (("h1", "h3"), ("h3", "h1")):
            one = link(answer, *pair)
            assert (one["status"], one["code"]) == ("no-answer", "host-silent")
            assert "h3" in one["detail"]


async def test_a_cable_that_is_out_is_found_from_both_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        run(FABRIC, "ip link set kvehost2 down")

        there, back = await between(lab)

        assert (there["status"], there["code"]) == ("blocked", "next-hop-silent")
        assert "198.18.0.2" in there["detail"]
        assert back["code"] in ("next-hop-silent", "dropped-by-sender", "no-route")


async def test_where_a_host_has_no_tunnel_yet_only_its_link_is_tried(tmp_path: Path) -> None:
    async with opened(tmp_path, places={"c1": "h1"}) as lab:
        there, back = await between(lab)

        assert (there["status"], there["code"]) == ("ok", "arrives")
        assert "no overlay network yet" in there["detail"]
        assert back["code"] == "reached"


async def test_an_underlay_of_ipv6_is_tested_the_same_way(tmp_path: Path) -> None:
    async with opened(tmp_path, family=6) as lab:
        there, back = await between(lab)
        assert (there["code"], back["code"]) == ("reached", "reached")

        run(FABRIC, "ip link set kvehost2 mtu 1412")
        there, back = await between(lab)
        assert (there["status"], there["mtu"]["passes"]) == ("mtu", 1412)


async def test_a_network_whose_mtu_does_not_fit_is_told_with_what_it_needs(tmp_path: Path) -> None:
    async with opened(tmp_path, network={"mtu": 1500}) as lab:
        there, _ = await between(lab)

        assert there["status"] == "mtu"
        assert there["mtu"] == {"needed": 1550, "passes": 1500, "told_by": None}
        assert "h1's own link does not take more" in there["detail"]


async def test_nothing_is_left_behind_and_nothing_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as lab:
        await ask(lab)
        before = [_everything(lab, name) for name in ("h1", "h2", "c1", "c2")]

        await ask(lab)

        assert [_everything(lab, name) for name in ("h1", "h2", "c1", "c2")] == before


def _everything(lab: Lab, name: str) -> list[str]:
    """Links, addresses, routes, neighbours (without their age), forwarding entries, rules, settings, packet sockets."""
    shown = run(
        lab.netns_of(name),
        "ip -o link; ip -o addr; ip route show table all; ip -6 route show table all; ip route show cache;"
        "ip neigh | sed 's/ [A-Z]*$//' ; bridge fdb; nft -s list ruleset; cat /proc/sys/net/ipv4/conf/all/*;"
        "tail -n +2 /proc/net/packet | awk '{print $3,$4,$5}'; tail -n +2 /proc/net/raw | wc -l",
    )
    return shown.splitlines()

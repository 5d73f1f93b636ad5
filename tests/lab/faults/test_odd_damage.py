"""What the datapath has no word for is kept as well: marks, flags, options, and routes that somebody put over ours."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datapath.names import bridge_name, vxlan_name
from lab.lab import Lab, until
from tests.lab.worker.bench import attached, until_answers, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
REPAIRED_S = 3.0  # a second, and what a busy machine takes on top

# {b}, {x}, {v}: bridge, tunnel and port of the overlay; {c}: a bridge under a name of its own; {r}: a remote block.
DAMAGES = {
    "a bridge's group": "ip link set {b} group 0",
    "a tunnel's group": "ip link set {x} group 7",
    "a port's group": "ip link set {v} group 0",
    "the group of a bridge that was named": "ip link set {c} group 0",
    "an alias": "ip link set {c} alias ''",
    "a spanning tree": "ip link set {b} type bridge stp_state 1",
    "snooping": "ip link set {b} type bridge mcast_snooping 1",
    "a bridge without ARP": "ip link set {b} arp off",
    "a port that does not flood": "bridge link set dev {v} flood off mcast_flood off bcast_flood off",
    "a port that does not learn": "bridge link set dev {v} learning off",
    "a port that is guarded": "bridge link set dev {v} guard on root_block on",
    "a port that is locked": "bridge link set dev {v} locked on",
    "a tunnel that sends frames back": "bridge link set dev {x} hairpin on",
    "a route over another gateway": "ip route replace {r} via 198.18.0.9",
    "a route to nowhere": "ip route replace blackhole {r}",
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with workers(tmp_path) as made:
        await made.client.create_network({"name": "over", "driver": "overlay"})
        await made.client.create_network({"name": "named", "driver": "bridge", "bridge_name": "br-named"})
        await made.client.create_network({"name": "plain", "driver": "routed"})
        await attached(made, "over", {"c1": "h1", "c2": "h2"})
        await attached(made, "named", {"d1": "h1"})
        await attached(made, "plain", {"f1": "h1", "f2": "h2"})
        await until_answers(made, "f1", made.address_of("f2", "plain"))
        yield made


async def test_everything_about_a_link_and_every_route_of_ours_is_kept(lab: Lab) -> None:
    network = lab.workloads["c1"].endpoints["over"]["network"]
    ports = shell(lab, f"ip -br link show master {bridge_name(network)}").splitlines()
    names = {
        "b": bridge_name(network),
        "x": vxlan_name(network),
        "v": next(line.split("@")[0] for line in ports if line.startswith("kve")),
        "c": "br-named",
        "r": next(line.split()[0] for line in shell(lab, "ip route show proto 222").splitlines() if " via " in line),
    }
    sound = look(lab, names)
    for what, command in DAMAGES.items():
        shell(lab, command.format(**names), must_work=True)

        async def is_whole() -> bool:
            return look(lab, names) == sound

        await until(is_whole, f"{what} is repaired", seconds=REPAIRED_S)
    await until_answers(lab, "c1", lab.address_of("c2", "over"))
    await until_answers(lab, "f1", lab.address_of("f2", "plain"))
    assert not (await lab.hosts["h1"].local.status())["conditions"]


def look(lab: Lab, names: dict[str, str]) -> str:
    """Groups, aliases and all flags, without what counts or ticks; and the routes."""
    strip = "sed -E 's/[a-z_]+_timer +[0-9.]+//g; s/topology_change[_a-z]* [0-9]//g; s/state [A-Za-z]+//g'"
    links = [f"ip -d -o link show {names[key]} | {strip}" for key in "bxvc"]
    return "\n".join(shell(lab, command) for command in [*links, "ip route show | grep -v kernel | sort"])


def shell(lab: Lab, command: str, *, must_work: bool = False) -> str:
    line = ["nsenter", f"--net={lab.netns_of('h1')}", "sh", "-c", command]
    return subprocess.run(line, check=must_work, capture_output=True, timeout=10, text=True).stdout

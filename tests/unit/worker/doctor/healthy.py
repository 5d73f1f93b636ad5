"""A host on which all is well, as facts: each test makes one thing wrong."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from worker.doctor.checks_kernel import FEATURES
from worker.doctor.examine import checks
from worker.doctor.facts import (
    Carried,
    ClockFacts,
    ControllerFacts,
    DockerFacts,
    Facts,
    FirewallFacts,
    KernelFacts,
    Link,
    Peer,
    SettingsFacts,
    StateFacts,
    StoreFacts,
    Trial,
    UnderlayFacts,
    WorkerFacts,
)
from worker.doctor.report import Check

ETH0 = Link("eth0", "", 1500, True, True, False)
TUNNEL = Link("kvx000000000001", "vxlan", 1450, True, True, True, 5001, 4789)
BRIDGE = Link("kvb000000000001", "bridge", 1450, True, True, True)

STATUS: dict[str, Any] = {
    "host": "h1",
    "ready": True,
    "mode": "live",
    "fenced": False,
    "conditions": [],
    "networks": [{"name": "n1", "conditions": []}],
    "failures": 0,
}

HEALTHY = Facts(
    kernel=KernelFacts(
        release="6.1.0-28-amd64",
        trials=dict.fromkeys(FEATURES, Trial(True)),
        modules={"vxlan": "loaded", "br_netfilter": "loaded"},
        nft="/usr/sbin/nft",
        nft_version="1.0.6",
        iptables=["iptables-nft"],
        capabilities=0x1FFFFFFFFFF,
    ),
    settings=SettingsFacts(
        {
            "net/ipv4/ip_forward": "1",
            "net/ipv6/conf/all/forwarding": "1",
            "net/ipv4/conf/all/rp_filter": "0",
            "net/ipv4/conf/eth0/rp_filter": "2",
            "net/ipv6/conf/eth0/accept_ra": "2",
            "net/bridge/bridge-nf-call-iptables": "1",
            "net/ipv4/neigh/default/gc_thresh3": "16384",
            "net/ipv6/neigh/default/gc_thresh3": "16384",
        },
        "eth0",
        {4: 30, 6: 4},
        {"ipv4": 0, "ipv6": 0},
        frozenset({4, 6}),
    ),
    underlay=UnderlayFacts(
        wanted="192.0.2.1",
        address=ip_address("192.0.2.1"),
        device=ETH0,
        links=[ETH0, BRIDGE, TUNNEL],
        holders=[],
        offloads={"tx-udp_tnl-segmentation": True},
        driver="ixgbe",
        peers=[Peer("h2", ip_address("192.0.2.2"), 1500)],
        networks=[Carried("n1", "overlay", None, 50)],
        kernel=(6, 1),
    ),
    firewall=FirewallFacts([], underlay_device="eth0", has_networks=True, has_worker=True),
    clock=ClockFacts(1.9e9, 0.1, 0.6, True, 7200.0),
    store=StoreFacts("etcd://e1:2379/kvnet", 2.0, in_step=True),
    controller=ControllerFacts("http://c1:7480", 3.0, "0.1.0"),
    state=StateFacts("/var/lib/kvnet", True, True, 1 << 30, 100_000, 0o700, "/run/kvnet/worker.sock", 0o600, 0),
    docker=DockerFacts(True, "/run/docker.sock", True, "28.2.2", "1.50", True, "inactive", True),
    worker=WorkerFacts("0.1.0", "/run/kvnet/worker.sock", STATUS, full_pass_age_s=30.0, links=[ETH0, BRIDGE, TUNNEL]),
)


def found(facts: Facts) -> dict[str, Check]:
    return {check.id: check for check in checks(facts)}

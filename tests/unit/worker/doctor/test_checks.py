"""Every check finds what is wrong, says what to do, and is silent where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kvnet import __version__
from tests.unit.worker.doctor.healthy import ETH0, HEALTHY, STATUS, found
from worker.doctor.facts import Carried, Facts, Holder, Link, Peer, Trial
from worker.doctor.report import AREAS, Status, report

Change = Callable[[Facts], Facts]


def with_(part: str, **changes: Any) -> Change:
    return lambda facts: replace(facts, **{part: replace(getattr(facts, part), **changes)})


def setting(path: str, value: str | None) -> Change:
    def change(facts: Facts) -> Facts:
        values = {**facts.settings.values}
        if value is None:
            del values[path]
        else:
            values[path] = value
        return replace(facts, settings=replace(facts.settings, values=values))

    return change


def trial(name: str, possible: bool | None, detail: str = "", **modules: str) -> Change:
    def change(facts: Facts) -> Facts:
        trials = {**facts.kernel.trials, name: Trial(possible, detail)}
        return replace(facts, kernel=replace(facts.kernel, trials=trials, modules={**facts.kernel.modules, **modules}))

    return change


def status(**changes: Any) -> Change:
    return with_("worker", status={**STATUS, **changes})


def link(**changes: Any) -> Change:
    return with_("underlay", device=replace(ETH0, **changes))


FOREIGN = Link("vxlan7", "vxlan", 1450, True, True, False, 7, 4789)

CASES: list[tuple[Change, str, Status, str]] = [
    (with_("kernel", release="3.10.0-1160.el7"), "kernel.version", Status.FAIL, "boot a newer kernel"),
    (with_("kernel", release="4.19.0"), "kernel.version", Status.WARN, "boot a newer kernel"),
    (trial("vxlan", False, "not supported", vxlan="missing"), "kernel.vxlan", Status.FAIL, "modprobe vxlan"),
    (trial("vxlan", None, "no namespace"), "kernel.vxlan", Status.UNKNOWN, "sudo kvnet doctor"),
    (trial("vxlan", None, "", vxlan="missing"), "kernel.vxlan", Status.FAIL, "modprobe vxlan"),
    (trial("vxlan", None, "", vxlan="loadable"), "kernel.vxlan", Status.OK, ""),
    (trial("macvlan", False, "not supported"), "kernel.macvlan", Status.WARN, "modprobe macvlan"),
    (trial("netns", False, "operation not permitted"), "kernel.netns", Status.FAIL, "boot a kernel"),
    (with_("kernel", nft="", nft_version=""), "kernel.nft", Status.FAIL, "install the package nftables"),
    (with_("kernel", nft_version=""), "kernel.nft", Status.FAIL, "reinstall"),
    (with_("kernel", nft_version="0.9.0"), "kernel.nft", Status.WARN, "update"),
    (with_("kernel", iptables=[]), "kernel.iptables", Status.SKIPPED, ""),
    (with_("kernel", capabilities=1 << 12), "kernel.capabilities", Status.FAIL, "--cap-add CAP_SYS_ADMIN"),
    (with_("kernel", raw_sockets=Trial(False, "not permitted")), "kernel.raw_sockets", Status.WARN, "kvnet-raw.socket"),
    (with_("kernel", capabilities=0, is_root=False), "kernel.capabilities", Status.UNKNOWN, "sudo kvnet doctor"),
    (with_("kernel", modules={"br_netfilter": "missing"}), "kernel.br_netfilter", Status.OK, ""),
    (setting("net/ipv4/ip_forward", "0"), "settings.forwarding4", Status.FAIL, "sysctl -w net.ipv4.ip_forward=1"),
    (
        lambda f: with_("settings", forwarded=frozenset({6}))(setting("net/ipv4/ip_forward", "0")(f)),
        "settings.forwarding4",
        Status.OK,
        "",
    ),
    (setting("net/ipv6/conf/all/forwarding", None), "settings.forwarding6", Status.SKIPPED, ""),
    (
        setting("net/ipv4/conf/all/rp_filter", "1"),
        "settings.rp_filter",
        Status.OK,
        "",
    ),
    (setting("net/ipv4/conf/eth0/rp_filter", "1"), "settings.rp_filter", Status.WARN, "net.ipv4.conf.eth0.rp_filter=2"),
    (
        lambda f: setting("has_ra_route/eth0", "1")(setting("net/ipv6/conf/eth0/accept_ra", "1")(f)),
        "settings.accept_ra",
        Status.WARN,
        "net.ipv6.conf.eth0.accept_ra=2",
    ),
    (setting("net/ipv6/conf/eth0/accept_ra", "1"), "settings.accept_ra", Status.OK, ""),
    (setting("net/ipv4/neigh/default/gc_thresh3", "32"), "settings.neighbours4", Status.FAIL, "gc_thresh3=16384"),
    (with_("settings", refused_neighbours={"ipv4": 9}), "settings.neighbours4", Status.WARN, "gc_thresh3=16384"),
    (setting("net/ipv4/neigh/default/gc_thresh3", None), "settings.neighbours4", Status.SKIPPED, ""),
    (with_("underlay", address=None, device=None), "underlay.address", Status.FAIL, "--underlay"),
    (with_("underlay", device=None), "underlay.address", Status.FAIL, "--underlay"),
    (with_("underlay", wanted=None), "underlay.address", Status.OK, ""),
    (link(is_up=False), "underlay.link", Status.FAIL, "ip link set eth0 up"),
    (link(has_carrier=False), "underlay.link", Status.FAIL, "cable"),
    (link(mtu=1300), "underlay.mtu", Status.FAIL, "ip link set eth0 mtu 1330"),
    (with_("underlay", peers=None), "underlay.peers", Status.SKIPPED, ""),
    (
        with_("underlay", peers=[Peer("h2", ip_address("2001:db8::2"), 1500)]),
        "underlay.peers",
        Status.FAIL,
        "--underlay",
    ),
    (
        with_("underlay", peers=[Peer("h2", ip_address("192.0.2.2"), 1400)]),
        "underlay.peers",
        Status.WARN,
        "kvnet connectivity test --hosts-only",
    ),
    (
        with_("underlay", networks=[Carried("big", "overlay", 1500, 50)]),
        "underlay.networks",
        Status.WARN,
        "kvnet network update big --mtu 1450",
    ),
    (with_("underlay", networks=[Carried("ok", "overlay", 1450, 50)]), "underlay.networks", Status.OK, ""),
    (with_("underlay", links=[ETH0, FOREIGN]), "underlay.port", Status.WARN, "ip -d link show type vxlan"),
    (with_("underlay", links=[replace(FOREIGN, is_external=True)]), "underlay.port", Status.FAIL, "ip link del vxlan7"),
    (with_("underlay", links=[replace(FOREIGN, port=8472)]), "underlay.port", Status.OK, ""),
    (with_("underlay", holders=[Holder("0.0.0.0", "socat", 7)]), "underlay.port", Status.FAIL, "pid 7"),
    (with_("underlay", holders=[Holder("0.0.0.0", "", 0)]), "underlay.port", Status.OK, ""),
    (with_("underlay", holders=None), "underlay.port", Status.UNKNOWN, "sudo kvnet doctor"),
    (with_("underlay", kernel=(5, 4)), "underlay.offload", Status.WARN, "ethtool -K eth0"),
    (with_("underlay", driver="vmxnet3"), "underlay.offload", Status.WARN, "ethtool -K eth0"),
    (with_("underlay", offloads={}), "underlay.offload", Status.UNKNOWN, ""),
    (with_("underlay", checksum_errors=500), "underlay.checksums", Status.WARN, "ethtool -K"),
    (with_("firewall", chains=None, problem="root only"), "firewall.rules", Status.UNKNOWN, "sudo kvnet doctor"),
    (with_("firewall", unread=["nft: 3 of 67 tables"]), "firewall.rules", Status.UNKNOWN, "nft list ruleset"),
    (with_("clock", offset_s=-120.0), "clock.offset", Status.FAIL, "set-ntp true"),
    (with_("clock", offset_s=5.0), "clock.offset", Status.WARN, "set-ntp true"),
    (with_("clock", offset_s=2.0), "clock.offset", Status.OK, ""),
    (with_("clock", offset_s=None), "clock.offset", Status.SKIPPED, ""),
    (with_("clock", now=1000.0), "clock.offset", Status.FAIL, "set-ntp true"),
    (with_("clock", is_synchronised=False), "clock.synchronised", Status.WARN, "set-ntp true"),
    (with_("clock", is_synchronised=None), "clock.synchronised", Status.UNKNOWN, ""),
    (with_("clock", is_monotonic=False), "clock.monotonic", Status.FAIL, "reboot"),
    (with_("store", latency_ms=None, problem="refused", fix="look"), "store.reachable", Status.FAIL, "look"),
    (with_("store", url=""), "store.reachable", Status.SKIPPED, ""),
    (with_("store", has_cluster=False), "store.cluster", Status.WARN, "start a controller"),
    (with_("store", latency_ms=900.0), "store.latency", Status.WARN, "disks"),
    (with_("store", in_step=False, stale_s=60.0), "store.in_step", Status.FAIL, "log"),
    (with_("store", in_step=False, stale_s=1.0), "store.in_step", Status.WARN, "again"),
    (with_("controller", latency_ms=None, problem="refused", fix="look"), "controller.reachable", Status.FAIL, "look"),
    (with_("controller", latency_ms=None, is_named=False), "controller.reachable", Status.SKIPPED, ""),
    (with_("controller", url=""), "controller.reachable", Status.SKIPPED, ""),
    (with_("controller", latency_ms=900.0), "controller.latency", Status.WARN, "load"),
    (with_("controller", trouble="the store went back"), "controller.trouble", Status.WARN, "kvnet store"),
    (with_("controller", warnings={"audit-broken": ("x", "verify it")}), "controller.audit", Status.WARN, "verify it"),
    (with_("controller", warnings={"certificate-expires": ("x", "y")}), "controller.certificate", Status.WARN, "y"),
    (with_("controller", warnings={"values-unreadable": ("x", "y")}), "controller.values", Status.WARN, "y"),
    (with_("controller", silent=("http://c2:7480",)), "controller.others", Status.WARN, "start them"),
    (with_("controller", in_clear=("http://c1:7480",)), "controller.encrypted", Status.WARN, "https://"),
    (with_("controller", version="9.0.0"), "controller.versions", Status.WARN, "upgrade"),
    (with_("state", joined_as="h1"), "state.identity", Status.OK, ""),
    (with_("state", joined_as="h1", certified_s=5e6), "state.identity", Status.OK, ""),
    (with_("state", joined_as="h1", certified_s=1e5), "state.identity", Status.WARN, "CA's key"),
    (with_("state", joined_as="h1", certified_s=-1.0), "state.identity", Status.FAIL, "--replace"),
    (with_("state", identity_problem="damaged"), "state.identity", Status.FAIL, "--replace"),
    (with_("state", is_writable=False), "state.directory", Status.FAIL, "ls -ld"),
    (with_("state", is_writable=None), "state.directory", Status.UNKNOWN, "sudo kvnet doctor"),
    (with_("state", exists=False), "state.directory", Status.OK, ""),
    (with_("state", directory=""), "state.directory", Status.SKIPPED, ""),
    (with_("state", free_bytes=1000), "state.space", Status.FAIL, "df"),
    (with_("state", free_bytes=8 << 20), "state.space", Status.WARN, "df"),
    (with_("state", free_files=3), "state.space", Status.WARN, "df -i"),
    (with_("state", socket_mode=0o666), "state.socket", Status.FAIL, "chmod 600"),
    (with_("state", socket_owner=1000), "state.socket", Status.WARN, "restart"),
    (with_("state", socket_mode=None), "state.socket", Status.SKIPPED, ""),
    (with_("docker", is_wanted=False), "docker.engine", Status.SKIPPED, ""),
    (with_("docker", has_socket=False), "docker.engine", Status.SKIPPED, ""),
    (with_("docker", version="", problem="refused"), "docker.engine", Status.FAIL, "systemctl status docker"),
    (with_("docker", version="19.03", api_version="1.40"), "docker.engine", Status.WARN, "upgrade"),
    (with_("docker", has_plugin_socket=False), "docker.plugin", Status.FAIL, "restart the worker"),
    (with_("docker", live_restore=False), "docker.live_restore", Status.WARN, "live-restore"),
    (with_("docker", firewall="nftables"), "docker.firewall", Status.FAIL, "firewall-backend"),
    (with_("docker", swarm="active"), "docker.swarm", Status.WARN, "--data-path-port"),
    (with_("worker", status=None, links=[]), "worker.running", Status.WARN, "kvnet worker"),
    (with_("worker", status=None, is_asked=False), "worker.running", Status.SKIPPED, ""),
    (with_("worker", status=None, is_asked=False), "worker.leftovers", Status.SKIPPED, ""),
    (status(ready=False, mode="blind"), "worker.running", Status.FAIL, "kvnet status"),
    (status(conditions=[{"code": "x", "detail": "y"}]), "worker.conditions", Status.FAIL, ""),
    (
        status(networks=[{"name": "n1", "conditions": [{"code": "mtu-impossible", "detail": "y"}]}]),
        "worker.conditions",
        Status.FAIL,
        "",
    ),
    (status(failures=3), "worker.failures", Status.WARN, ""),
    (with_("worker", full_pass_age_s=None), "worker.full_pass", Status.FAIL, "log"),
    (with_("worker", full_pass_age_s=900.0), "worker.full_pass", Status.FAIL, "restart"),
    (with_("worker", links=[replace(ETH0, name="kvbmine")]), "worker.foreign", Status.FAIL, "ip link del kvbmine"),
    (with_("worker", status=None), "worker.leftovers", Status.WARN, "ip link del group 27510"),
    (with_("worker", status=None, links=[], tables=["inet kvnet"]), "worker.leftovers", Status.WARN, "nft delete"),
    (with_("worker", status=None, links=[]), "worker.leftovers", Status.OK, ""),
]


def test_a_host_that_is_well_has_nothing_but_ok() -> None:
    assert [c for c in found(HEALTHY).values() if c.status is not Status.OK] == []


@pytest.mark.parametrize(
    ("change", "id_", "expected", "words"), CASES, ids=[f"{c[1]}-{c[2]}-{n}" for n, c in enumerate(CASES)]
)
def test_what_is_wrong_is_found_and_told_with_what_to_do(
    change: Change, id_: str, expected: Status, words: str
) -> None:
    check = found(change(HEALTHY))[id_]

    assert check.status is expected, check
    assert words in check.fix
    if check.status in (Status.WARN, Status.FAIL):
        assert check.found
        assert check.why
        assert check.fix


def test_a_part_that_could_not_be_looked_at_is_told_and_the_others_are_judged() -> None:
    for area in AREAS:
        told = found(replace(HEALTHY, **{area: None}, problems={area: "OSError: gone"}))

        assert told[f"{area}.examined"].status is Status.UNKNOWN
        assert "OSError: gone" in told[f"{area}.examined"].found
        assert {check.area for check in told.values()} == set(AREAS)


def test_one_thing_that_is_wrong_makes_no_other_check_fail() -> None:
    for change, id_, _, _ in CASES:
        others = {c.id for c in found(change(HEALTHY)).values() if c.status is Status.FAIL} - {id_}
        assert not others or id_ in ("underlay.address", "worker.running", "worker.leftovers"), (id_, others)


def test_every_check_has_an_area_that_is_shown_and_every_failing_one_is_tried_here() -> None:
    for change, _, _, _ in CASES:
        assert {check.area for check in found(change(HEALTHY)).values()} <= set(AREAS)
    assert set(found(HEALTHY)) <= {id_ for _, id_, _, _ in CASES} | {
        *(f"kernel.{name}" for name in HEALTHY.kernel.trials),
        "settings.forwarding6",
        "settings.bridge_nf_call",
        "settings.neighbours6",
        "firewall.tunnels_in",
        "firewall.tunnels_out",
        "firewall.forward",
        "firewall.bridged",
        "firewall.others",
    }


def test_a_report_counts_what_it_found_in_the_order_of_areas() -> None:
    told = report("h1", __version__, reversed(list(found(HEALTHY).values())))

    assert told["counts"]["ok"] == len(told["checks"])
    areas = [check["area"] for check in told["checks"]]
    assert areas == sorted(areas, key=AREAS.index)

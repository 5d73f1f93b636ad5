"""What the kernel must be able to do, and what this process may: judged from what was tried."""

from __future__ import annotations

from collections.abc import Iterator

from worker.doctor.facts import KernelFacts, Trial
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

OLDEST, USUAL = (4, 19), (5, 10)
NFT_OLDEST = (0, 9, 8)
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
# What each is for, whether kvnet is nothing without it, and the module that brings it.
FEATURES = {
    "netns": ("workloads live in network namespaces", True, ""),
    "bridge": ("every network but macvlan ones has a bridge", True, "bridge"),
    "veth": ("a workload's interface is one half of a veth pair", True, "veth"),
    "vxlan": ("overlay networks are VXLAN tunnels", True, "vxlan"),
    "neigh_suppress": ("tunnels answer ARP and neighbour discovery here, so that nothing is flooded", True, ""),
    "macvlan": ("transparent networks in macvlan mode, and the host's way to them", False, "macvlan"),
    "nf_tables": ("networks are kept apart, and ports published, by nftables", True, "nf_tables"),
    "nf_tables_bridge": ("false routers and gateways of workloads are stopped on the bridge", True, "nf_tables"),
    "conntrack": ("answers are told from questions; cut when a port is withdrawn", True, "nf_conntrack"),
}


def check_kernel(facts: KernelFacts) -> Iterator[Check]:
    yield _version(facts.release)
    for name, (why, is_needed, module) in FEATURES.items():
        yield _feature(name, facts.trials.get(name, Trial(None, "not tried")), why, is_needed, module, facts)
    yield _bridge_netfilter(facts)
    yield from _nft(facts)
    yield _capabilities(facts)
    yield _raw_sockets(facts)


def _version(release: str) -> Check:
    version = numbers(release)[:2]
    if version < OLDEST:
        why = "kvnet's tunnels need what came with 4.19"
        return fail("kernel.version", f"Linux {release}", why, "boot a newer kernel: 5.10 or later")
    if version < USUAL:
        why = "kvnet is not tried with kernels before 5.10"
        return warn("kernel.version", f"Linux {release}", why, "boot a newer kernel: 5.10 or later")
    return ok("kernel.version", f"Linux {release}")


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    found = []
    for part in text.lstrip("v").replace("-", ".").split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def _feature(name: str, trial: Trial, why: str, is_needed: bool, module: str, facts: KernelFacts) -> Check:
    id_ = f"kernel.{name}"
    state = facts.modules.get(module, "unknown") if module else ""
    if trial.is_possible:
        return ok(id_, f"works{f' ({module}: {state})' if state and state != 'unknown' else ''}")
    if trial.is_possible is None:
        if state == "loadable":
            return ok(id_, f"module {module} is there and is loaded when it is first needed")
        if state == "missing":
            return _missing(id_, f"there is no module {module} for this kernel", why, is_needed, module)
        return unknown(id_, f"not tried: {trial.detail}", "run it as root: sudo kvnet doctor")
    return _missing(id_, trial.detail, why, is_needed, module)


def _missing(id_: str, found: str, why: str, is_needed: bool, module: str) -> Check:
    fix = f"modprobe {module}" if module else "boot a kernel that has it"
    if module:
        fix += "; if there is none, install the kernel's modules (Debian: linux-image-$(uname -r), Red Hat: "
        fix += "kernel-modules-extra)"
    return fail(id_, found, why, fix) if is_needed else warn(id_, found, why, fix)


def _bridge_netfilter(facts: KernelFacts) -> Check:
    """Not needed; who needs it is Docker."""
    state = facts.modules.get("br_netfilter", "unknown")
    if state in ("loaded", "builtin"):
        return ok("kernel.br_netfilter", f"{state}: frames between workloads of one network pass the firewall too")
    return ok("kernel.br_netfilter", f"not loaded ({state}); kvnet does not need it")


def _nft(facts: KernelFacts) -> Iterator[Check]:
    why = "the worker writes its tables with it"
    if not facts.nft:
        yield fail("kernel.nft", "there is no program 'nft'", why, "install the package nftables")
    elif not facts.nft_version:
        yield fail("kernel.nft", f"{facts.nft} does not run", why, "reinstall the package nftables")
    elif numbers(facts.nft_version) < NFT_OLDEST:
        yield warn("kernel.nft", f"{facts.nft} {facts.nft_version}", f"{why}; tried from 0.9.8 on", "update nftables")
    else:
        yield ok("kernel.nft", f"{facts.nft} {facts.nft_version}")
    if facts.iptables:
        yield ok("kernel.iptables", f"{', '.join(facts.iptables)}")
    else:
        yield skipped("kernel.iptables", "no iptables program: needed only beside Docker or other rules of iptables")


def _capabilities(facts: KernelFacts) -> Check:
    if facts.capabilities is None:
        return unknown("kernel.capabilities", "they cannot be read")
    lacking = [name for name, bit in CAPABILITIES.items() if not facts.capabilities >> bit & 1]
    if not lacking:
        return ok("kernel.capabilities", ", ".join(CAPABILITIES))
    found = f"this process has no {', '.join(lacking)}"
    if not facts.is_root:
        return unknown("kernel.capabilities", f"{found}: it is not root", "run it as root: sudo kvnet doctor")
    why = "a worker needs them: links and rules, other namespaces"
    return fail("kernel.capabilities", found, why, f"give them: in a container --cap-add {' --cap-add '.join(lacking)}")


def _raw_sockets(facts: KernelFacts) -> Check:
    """Of its own capability or of the helper's."""
    trial = facts.raw_sockets
    if trial.is_possible:
        return ok("kernel.raw_sockets", trial.detail or "can be opened")
    if trial.is_possible is None or not facts.is_root:
        return unknown("kernel.raw_sockets", f"not tried: {trial.detail}", "run it as root: sudo kvnet doctor")
    why = "connectivity tests are made with them, and workloads are told of addresses that moved"
    fix = "systemctl enable --now kvnet-raw.socket, or give the worker CAP_NET_RAW"
    return warn("kernel.raw_sockets", f"they cannot be opened: {trial.detail}", why, fix)

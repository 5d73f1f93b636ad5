"""What a worker keeps on this host, and what it left: directory, socket, devices, tables, Docker's side. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from worker.doctor.facts import DockerFacts, StateFacts, WorkerFacts
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

MEGABYTE = 1 << 20
LITTLE_BYTES, LITTLE_FILES = 16 * MEGABYTE, 200
OPEN_TO_OTHERS = 0o077
OLDEST_API = (1, 41)  # Docker 20.10
PREFIXES = ("kvb", "kvx", "kve", "kvs")
LATE_PASSES = 5.0


def check_state(facts: StateFacts) -> Iterator[Check]:
    yield from _directory(facts)
    yield _socket(facts)


def _directory(facts: StateFacts) -> Iterator[Check]:
    why = "a worker that cannot write there attaches nothing"
    if not facts.directory:
        yield skipped("state.directory", "none was named: a worker looks at its own, else --state-dir says which")
        return
    if not facts.exists:
        yield ok("state.directory", f"{facts.directory} is not there; the worker makes it")
        return
    if facts.is_writable is None:
        yield unknown(
            "state.directory", f"{facts.directory} cannot be looked into", "run it as root: sudo kvnet doctor"
        )
        return
    if not facts.is_writable:
        yield fail(
            "state.directory", f"{facts.directory} cannot be written to", why, f"ls -ld {facts.directory}; mount"
        )
        return
    yield ok("state.directory", f"{facts.directory} can be written to")
    if facts.free_bytes is not None and facts.free_bytes < LITTLE_BYTES:
        found = f"{facts.free_bytes // MEGABYTE} MB left at {facts.directory}"
        yield (fail if facts.free_bytes < MEGABYTE else warn)("state.space", found, why, f"df {facts.directory}")
    elif facts.free_files is not None and 0 <= facts.free_files < LITTLE_FILES:
        yield warn(
            "state.space", f"{facts.free_files} files left at {facts.directory}", why, f"df -i {facts.directory}"
        )
    elif facts.free_bytes is not None:
        yield ok("state.space", f"{facts.free_bytes // MEGABYTE} MB free")


def _socket(facts: StateFacts) -> Check:
    if facts.socket_mode is None:
        return skipped("state.socket", f"there is no socket at {facts.socket or 'the usual place'}")
    if facts.socket_mode & OPEN_TO_OTHERS:
        why = "whoever may use it attaches interfaces to any namespace: as good as root"
        return fail(
            "state.socket", f"{facts.socket} has mode {facts.socket_mode:04o}", why, f"chmod 600 {facts.socket}"
        )
    if facts.socket_owner:
        why = "the worker makes it for root alone"
        return warn("state.socket", f"{facts.socket} belongs to user {facts.socket_owner}", why, "restart the worker")
    return ok("state.socket", f"{facts.socket} is for root only")


def check_worker(facts: WorkerFacts) -> Iterator[Check]:
    if not facts.is_asked:
        yield skipped("worker.running", "the worker was not asked")
    elif facts.status is None:
        where = f" at {facts.socket}" if facts.socket else ""
        found = facts.problem or f"no worker answers{where}"
        yield warn("worker.running", found, "networks are built and repaired by it", facts.fix or "kvnet worker --help")
    else:
        yield from _status(facts)
    yield from _leftovers(facts)


def _status(facts: WorkerFacts) -> Iterator[Check]:
    status = facts.status or {}
    if status.get("ready"):
        yield ok("worker.running", f"kvnet {facts.version}, host {status.get('host', '')}, ready")
    else:
        found = f"not ready: mode {status.get('mode')}{', fenced' if status.get('fenced') else ''}"
        yield fail(
            "worker.running", found, "it builds and attaches nothing new", "kvnet status on this host, and its log"
        )
    problems = [("", one) for one in status.get("conditions", ())]
    problems += [(n["name"], one) for n in status.get("networks", ()) for one in n["conditions"]]
    if problems:
        shown = "; ".join(f"{f'{name}: ' if name else ''}{one['code']}: {one['detail']}" for name, one in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        why = "it cannot build what it should"
        yield fail("worker.conditions", f"{shown}{more}", why, "docs: worker.md lists the codes and what to do")
    else:
        yield ok("worker.conditions", "it reports no problem")
    yield _full_pass(facts)
    failures = status.get("failures", 0)
    if failures:
        found = f"the kernel refused {failures} operations since its start"
        yield warn(
            "worker.failures", found, "each was tried again; see whether it still grows", "kvnet logs, or its journal"
        )
    else:
        yield ok("worker.failures", "the kernel refused nothing since its start")


def _full_pass(facts: WorkerFacts) -> Check:
    age = facts.full_pass_age_s
    if age is None:
        return fail(
            "worker.full_pass", "no full pass has ended since its start", "nothing is known to be right", "see its log"
        )
    if age > LATE_PASSES * facts.full_pass_every_s:
        found = f"the last full pass was {age:.0f} s ago; there is one every {facts.full_pass_every_s:.0f} s"
        why = "what others changed in the kernel is not repaired"
        return fail("worker.full_pass", found, why, "restart the worker, and keep its log")
    return ok("worker.full_pass", f"the whole kernel was compared {age:.0f} s ago")


def _leftovers(facts: WorkerFacts) -> Iterator[Check]:
    """What bears our names: foreign, or ours without anybody who looks after it."""
    foreign = [link.name for link in facts.links if link.name.startswith(PREFIXES) and not link.is_ours]
    if foreign:
        why = "a network that needs that name is not built: kvnet does not touch what is not its own"
        fix = f"if nobody needs it: ip link del {foreign[0]}; else rename it"
        yield fail("worker.foreign", f"devices of somebody else's with names of kvnet's: {_some(foreign)}", why, fix)
    else:
        yield ok("worker.foreign", "no device of anybody else's has a name of kvnet's")
    ours = [link.name for link in facts.links if link.is_ours]
    if not facts.is_asked:
        yield skipped(
            "worker.leftovers", f"{_count(len(ours), 'device')}; whether a worker looks after them was not asked"
        )
    elif facts.status is None and (ours or facts.tables):
        what = [
            f"{_count(len(ours), 'device')} ({_some(ours)})" if ours else "",
            f"tables {', '.join(facts.tables)}" if facts.tables else "",
        ]
        why = "of a worker that was stopped: they go on working, and nobody repairs them or brings changes"
        fix = "start the worker again; if it shall not come back: ip link del group 27510, nft delete table inet kvnet"
        yield warn("worker.leftovers", " and ".join(filter(None, what)), why, fix)
    elif facts.status is None:
        yield ok("worker.leftovers", "nothing of kvnet's is left on this host")
    else:
        yield ok("worker.leftovers", f"{_count(len(ours), 'device')}, looked after by the worker")


def check_docker(facts: DockerFacts) -> Iterator[Check]:
    if facts.is_wanted is False:
        yield skipped("docker.engine", "this worker serves no Docker (--docker off)")
        return
    if not facts.has_socket:
        yield skipped("docker.engine", f"there is no Docker at {facts.api}")
        return
    if not facts.version:
        why = "containers get no interfaces from kvnet"
        yield fail("docker.engine", f"{facts.api}: {facts.problem or 'no answer'}", why, "systemctl status docker")
        return
    yield _engine(facts)
    if facts.has_plugin_socket is False and facts.is_wanted:
        why = "Docker finds kvnet by it"
        yield fail(
            "docker.plugin", "there is no socket of kvnet's where Docker looks", why, "restart the worker; see its log"
        )
    elif facts.has_plugin_socket:
        yield ok("docker.plugin", "Docker finds kvnet")
    if facts.live_restore is False:
        why = "a restart of Docker ends all containers; with live-restore they and their interfaces stay"
        fix = '"live-restore": true in /etc/docker/daemon.json, then: systemctl reload docker'
        yield warn("docker.live_restore", "live-restore is off", why, fix)
    elif facts.live_restore:
        yield ok("docker.live_restore", "on")
    if facts.firewall == "nftables":
        why = "its forward chain has no place for rules of others, and drops what kvnet forwards"
        fix = '"firewall-backend": "iptables" in /etc/docker/daemon.json, then restart Docker'
        yield fail("docker.firewall", "Docker uses nftables itself", why, fix)
    if facts.swarm == "active":
        why = "its ingress network uses VXLAN on UDP port 4789 too: segments with the same number collide"
        yield warn(
            "docker.swarm", "this host is in a swarm", why, "docker swarm leave, or another port: --data-path-port 7789"
        )


def _engine(facts: DockerFacts) -> Check:
    api = tuple(int(part) for part in facts.api_version.split(".") if part.isdigit())
    if api < OLDEST_API:
        found = f"Docker {facts.version} (API {facts.api_version})"
        return warn("docker.engine", found, "kvnet is tried with Docker 20.10 and newer", "upgrade Docker")
    return ok("docker.engine", f"Docker {facts.version} (API {facts.api_version})")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

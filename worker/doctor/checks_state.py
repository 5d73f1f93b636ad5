"""What a worker keeps on this host, and the Docker that it serves: directory, socket, engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from worker.doctor.facts import DockerFacts, StateFacts
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

MEGABYTE = 1 << 20
LITTLE_BYTES, LITTLE_FILES = 16 * MEGABYTE, 200
OPEN_TO_OTHERS = 0o077
DAY_S = 86_400.0
SOON_S = 14 * DAY_S
OLDEST_API = (1, 41)  # Docker 20.10


def check_state(facts: StateFacts) -> Iterator[Check]:
    yield from _directory(facts)
    yield _socket(facts)
    yield from _identity(facts)


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


def _identity(facts: StateFacts) -> Iterator[Check]:
    """Of hosts that have joined; others have a token in their settings, or need none."""
    anew = "join anew: kvnet worker join --replace"
    if facts.identity_problem:
        yield fail("state.identity", facts.identity_problem, "the worker does not start with it", anew)
        return
    if not facts.joined_as:
        return
    if facts.certified_s is None:
        yield ok("state.identity", f"joined as {facts.joined_as}")
    elif facts.certified_s <= 0:
        found = f"the certificate of {facts.joined_as} expired {-facts.certified_s / DAY_S:.0f} days ago"
        yield fail("state.identity", found, "no controller lets this host in", anew)
    elif facts.certified_s < SOON_S:
        found = f"the certificate of {facts.joined_as} ends in {facts.certified_s / DAY_S:.1f} days"
        why = "the worker renews it long before, and could not; its log says why (certificate-not-renewed)"
        yield warn("state.identity", found, why, "look at that controller's --ca: does it have the CA's key?")
    else:
        days = facts.certified_s / DAY_S
        yield ok("state.identity", f"joined as {facts.joined_as}; its certificate is good for {days:.0f} days")


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

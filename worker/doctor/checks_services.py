"""What a host needs of others: a clock that agrees, a store and a controller that answer, versions that fit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from worker.doctor.checks_kernel import numbers
from worker.doctor.facts import ClockFacts, ControllerFacts, StoreFacts
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

OFFSET_WARN_S, OFFSET_FAIL_S = 2.0, 60.0
SLOW_STORE_MS, SLOW_CONTROLLER_MS = 200.0, 500.0
STALE_S = 15.0
FIRST_POSSIBLE = 1_700_000_000.0  # November 2023: before kvnet was written
# A warning of the controller's -> what its check is called, and why it matters.
OF_THE_CLUSTER = {
    "audit-broken": ("audit", "what the journal says of who changed what cannot be relied on"),
    "certificate-expires": ("certificate", "once it is over no host and no command hears that controller any more"),
    "values-unreadable": ("values", "what those values said is not done on any host"),
}
NTP = "start a time service (chrony, systemd-timesyncd): timedatectl set-ntp true"


def check_clock(facts: ClockFacts) -> Iterator[Check]:
    why = "times of changes and of who was seen when are compared between hosts, and certificates are judged by it"
    if facts.now < FIRST_POSSIBLE:
        yield fail("clock.offset", "this host's clock is years behind", why, NTP)
    elif facts.offset_s is None:
        yield skipped("clock.offset", "there is no controller's clock to compare it with")
    else:
        yield _offset(facts.offset_s, facts.uncertainty_s, why)
    if facts.is_synchronised is None:
        yield unknown("clock.synchronised", "the kernel does not say")
    elif facts.is_synchronised:
        yield ok("clock.synchronised", "a time service keeps it")
    else:
        yield warn("clock.synchronised", "no time service keeps this clock, as far as the kernel knows", why, NTP)
    if not facts.is_monotonic:
        why = "timeouts and sessions are measured by it"
        yield fail(
            "clock.monotonic", "the monotonic clock went backwards", why, "reboot; look for a broken clock source"
        )
    else:
        yield ok("clock.monotonic", f"{facts.since_boot_s / 3600:.1f} h since the start")


def _offset(offset_s: float, uncertainty_s: float, why: str) -> Check:
    sure = max(0.0, abs(offset_s) - uncertainty_s)
    direction = "ahead of" if offset_s > 0 else "behind"
    found = f"{abs(offset_s):.1f} s {direction} the controller's clock (give or take {uncertainty_s:.1f} s)"
    if sure >= OFFSET_FAIL_S:
        return fail("clock.offset", found, why, NTP)
    if sure >= OFFSET_WARN_S:
        return warn("clock.offset", found, why, NTP)
    return ok("clock.offset", f"agrees with the controller's, give or take {uncertainty_s + sure:.1f} s")


def check_store(facts: StoreFacts) -> Iterator[Check]:
    if not facts.url:
        yield skipped("store.reachable", "no store was named: with --store URL it is tried; a worker tries its own")
        return
    if facts.latency_ms is None:
        why = "this host hears of no change, and attaches nothing"
        yield fail("store.reachable", f"{facts.url}: {facts.problem}", why, facts.fix)
        return
    yield ok("store.reachable", f"{facts.url} answers")
    if not facts.has_cluster:
        why = "there is no cluster in it: a controller founds one"
        yield warn(
            "store.cluster", "the store is empty", why, "start a controller on this store, or look at the URL's root"
        )
    else:
        yield ok("store.cluster", "a cluster is in it")
    if facts.latency_ms > SLOW_STORE_MS:
        why = "every attach waits for it"
        fix = "look at the store's disks and at the way there"
        yield warn("store.latency", f"{facts.latency_ms:.0f} ms for one read", why, fix)
    else:
        yield ok("store.latency", f"{facts.latency_ms:.1f} ms for one read")
    if facts.in_step is not None:
        yield _in_step(facts)


def _in_step(facts: StoreFacts) -> Check:
    if facts.in_step:
        return ok("store.in_step", "the worker's mirrors have all that the store has")
    why = "changes of others do not arrive here"
    found = f"the worker's mirrors have not heard from the store for {facts.stale_s:.0f} s"
    if facts.stale_s > STALE_S:
        return fail("store.in_step", found, why, "see the worker's log, and 'kvnet store' for what the controllers see")
    return warn("store.in_step", found, why, "look again in a moment")


def check_controller(facts: ControllerFacts, *, own: str) -> Iterator[Check]:
    """`own`: the version of whoever examines."""
    if not facts.url:
        yield skipped("controller.reachable", "no controller was named")
    elif facts.latency_ms is None and not facts.is_named:
        yield skipped("controller.reachable", f"none answers at {facts.url}, and no other was named (--controller)")
    elif facts.latency_ms is None:
        why = "attach and detach need it"
        yield fail("controller.reachable", f"{facts.url}: {facts.problem}", why, facts.fix)
    else:
        yield ok("controller.reachable", f"{facts.url} answers in {facts.latency_ms:.0f} ms")
        if facts.latency_ms > SLOW_CONTROLLER_MS:
            fix = "look at its load, and at the way there"
            yield warn("controller.latency", f"{facts.latency_ms:.0f} ms", "every attach waits for it", fix)
        if facts.silent:
            found = f"of several, these do not answer: {', '.join(facts.silent)}"
            yield warn("controller.others", found, "there are fewer to take over", "start them, or leave them out")
        if facts.trouble:
            yield warn("controller.trouble", facts.trouble, "it changes nothing until that is settled", "kvnet store")
        yield from _of_the_cluster(facts)
    if facts.in_clear:
        found = f"tokens-in-clear: a token is sent to {', '.join(facts.in_clear)}, and nothing encrypts it"
        why = "whoever listens on the way has it, and may what this host may"
        yield warn("controller.encrypted", found, why, "give the controllers certificates, and name them with https://")
    yield _versions({"controller": facts.version, "this kvnet": own})


def _of_the_cluster(facts: ControllerFacts) -> Iterator[Check]:
    """What is wrong with all of it, whichever host is looked at."""
    for code, (name, why) in OF_THE_CLUSTER.items():
        if code in facts.warnings:
            detail, fix = facts.warnings[code]
            yield warn(f"controller.{name}", detail, why, fix)


def _versions(versions: dict[str, str]) -> Check:
    known = {who: version for who, version in versions.items() if version}
    told = ", ".join(f"{who} {version}" for who, version in known.items())
    if len({numbers(version)[:2] for version in known.values()}) > 1:
        why = "they are tried together with the same version only; during an upgrade they differ for a while"
        return warn("controller.versions", told, why, "upgrade the older ones")
    return ok("controller.versions", told)

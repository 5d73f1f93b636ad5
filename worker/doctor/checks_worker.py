"""How the worker of this host is, and what of kvnet's is on it that nobody looks after. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from worker.doctor.facts import WorkerFacts
from worker.doctor.report import Check, fail, ok, skipped, warn

PREFIXES = ("kvb", "kvx", "kve", "kvs")
LATE_PASSES = 5.0


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


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

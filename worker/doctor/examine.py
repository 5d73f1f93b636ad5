"""Examines this host: gathers, judges, reports. By a worker of its own host, or by the command line where none runs.

Changes nothing. Whatever cannot be looked at is told as such, so an examination always ends with a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from kvnet import __version__
from worker.doctor.checks_firewall import check_firewall
from worker.doctor.checks_kernel import check_kernel
from worker.doctor.checks_services import check_clock, check_controller, check_store
from worker.doctor.checks_settings import check_settings
from worker.doctor.checks_state import check_docker, check_state
from worker.doctor.checks_underlay import check_underlay
from worker.doctor.checks_worker import check_worker
from worker.doctor.facts import Facts, FirewallFacts, UnderlayFacts
from worker.doctor.gather import Subject, gather
from worker.doctor.report import Check, report, unknown

T = TypeVar("T")


async def examine(subject: Subject) -> dict[str, Any]:
    facts = await gather(subject)
    return report(subject.host, __version__, checks(facts))


def checks(facts: Facts) -> Iterator[Check]:
    """Everything that is to be said about them."""
    yield from _judged("kernel", facts, facts.kernel, check_kernel)
    yield from _judged("settings", facts, facts.settings, check_settings)
    yield from _judged("underlay", facts, facts.underlay, check_underlay)
    yield from _judged("firewall", facts, facts.firewall, partial(_firewall, facts.underlay))
    yield from _judged("clock", facts, facts.clock, check_clock)
    yield from _judged("store", facts, facts.store, check_store)
    yield from _judged("controller", facts, facts.controller, partial(check_controller, own=__version__))
    yield from _judged("state", facts, facts.state, check_state)
    yield from _judged("docker", facts, facts.docker, check_docker)
    yield from _judged("worker", facts, facts.worker, check_worker)


def _judged(area: str, facts: Facts, part: T | None, judge: Callable[[T], Iterator[Check]]) -> Iterator[Check]:
    if part is None:
        told = facts.problems.get(area, "nobody knows why")
        yield unknown(f"{area}.examined", f"it could not be looked at: {told}", "repeat it; if it stays so, report it")
    else:
        yield from judge(part)


def _firewall(underlay: UnderlayFacts | None, facts: FirewallFacts) -> Iterator[Check]:
    """Judged with packets as they would be here."""
    own = underlay.address if underlay is not None else None
    peers = (underlay.peers or ()) if underlay is not None else ()
    peer = next((one.underlay for one in peers if own is not None and one.underlay.version == own.version), None)
    return check_firewall(facts, own.version if own else 4, str(peer or ""), str(own or ""))

"""One reconcile pass on paper: what should be, what is, the plan between them, and what to say when it does not work.

Pure. `worker.reconcile` decides when a draft is made and whether it is carried out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from datapath.conditions import Finding
from datapath.desired import merge
from datapath.objects import Failure, HostState, Operation, Scope
from datapath.plan import Conflict, Plan, expected, plan
from kvnet.errors import ForeignObject, KernelRefused, KvnetError
from worker.owners import Owners
from worker.passes import both, without

REMOVE_OR_RENAME = "remove or rename it if nothing needs it; kvnet never touches it"


@dataclass(frozen=True, slots=True)
class Draft:
    """One pass on paper. `desired` and `scopes` by network; `versions` is what it will have brought the networks to.

    `number`: which pass it is.
    """

    desired: Mapping[str, HostState]
    versions: Mapping[str, int]
    scopes: Mapping[str, Scope]
    host: HostState
    actual: HostState
    plan: Plan
    findings: tuple[Finding, ...]
    number: int

    @property
    def owners(self) -> Owners:
        return Owners(self.desired, self.scopes.values(), self.actual.links)

    @property
    def changes(self) -> dict[str, tuple[Operation, ...]]:
        """What the plan changes, by network; "" for what concerns the whole host."""
        owners = self.owners
        found: dict[str, tuple[Operation, ...]] = {}
        for operation in self.plan.operations:
            network_id = owners.of_operation(operation)
            found[network_id] = (*found.get(network_id, ()), operation)
        return found

    def expected(self, network_id: str) -> HostState:
        return expected(self.desired[network_id], self.actual)


def draft_of(
    states: Mapping[str, HostState],
    versions: Mapping[str, int],
    scopes: Mapping[str, Scope],
    host: HostState,
    actual: HostState,
    held: Collection[str],
    found: tuple[Finding, ...],
    number: int,
) -> Draft:
    """`scopes`: also of networks that are going, or held."""
    target = merge([*states.values(), host])
    if held:
        # What belongs to them is neither wanted nor unwanted, and the firewall must go on knowing them.
        if actual.firewall is not None and host.firewall is not None:
            target = merge([target, HostState(firewall=both(host.firewall, actual.firewall))])
        actual = without(actual, held, Owners(states, scopes.values(), actual.links))
    return Draft(states, versions, scopes, host, actual, plan(target, actual), found, number)


def problems_of(
    conflicts: Collection[Conflict], found: Collection[Finding], failures: Collection[Failure]
) -> list[tuple[str, str]]:
    problems = [(conflict.code, conflict.detail) for conflict in conflicts]
    problems += [(finding.code, finding.detail) for finding in found]
    problems += [(failure.code, words(failure)) for failure in failures]
    return list(dict.fromkeys(problems))


def words(failure: Failure) -> str:
    """A failure with a code of its own says all that there is to say."""
    if failure.code != KernelRefused.code:
        return failure.reason
    return f"{type(failure.operation).__name__}: {failure.reason}"


def refused(failures: Collection[Failure]) -> KvnetError:
    foreign_ones = [failure for failure in failures if failure.is_foreign]
    if foreign_ones:
        return ForeignObject("; ".join(dict.fromkeys(f.reason for f in foreign_ones)), fix=REMOVE_OR_RENAME)
    shown = "; ".join(dict.fromkeys(words(failure) for failure in failures))
    return KernelRefused(f"the kernel refused: {shown}", fix="see the worker's log; it keeps trying")


def in_the_way(conflicts: Collection[Conflict]) -> KvnetError:
    detail = "; ".join(conflict.detail for conflict in conflicts)
    devices = {"devices": [conflict.device for conflict in conflicts]}
    if all(conflict.code == ForeignObject.code for conflict in conflicts):
        return ForeignObject(detail, fix=REMOVE_OR_RENAME, context=devices)
    codes = {"conditions": sorted({conflict.code for conflict in conflicts})}
    return KernelRefused(detail, fix="'kvnet status' on this host says when it is over", context={**devices, **codes})

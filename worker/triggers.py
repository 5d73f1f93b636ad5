"""From a hint to what is looked at, and when: the kernel tells a device or a destination, never whose it is.

A network is not looked at again at once: several kinds of damage in a row are one look, and whoever undoes the same
repair again and again is answered ever more slowly. Decides nothing about what is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datapath.objects import Hint
from worker.known import Known, Repairs
from worker.owners import is_in

# A network is read again for a hint this much later than the last time, in multiples of what a look at it costs; twice
# as much each time that somebody undoes the same repair, after a few: several kinds of damage in a row are not a fight.
# The echo of a change of our own is looked after like any other hint: that it is one cannot be known.
HINT_GAP_FACTOR = 10.0
HINT_GAP_S = (0.05, 5.0)
# What changes in the store while a pass runs, or so soon after it as that pass took, is gathered into one next pass:
# a burst costs half of the time at most, and whoever comes after a quiet moment waits for nobody.
LONGEST_REST_S = 0.5


def networks_of(hint: Hint, networks: Mapping[str, Known]) -> set[str]:
    """Those that a hint is about by what they were seen with: bridges with a name, uplinks, blocks."""
    found: set[str] = set()
    for network_id, known in networks.items():
        scope = known.scope
        if (
            scope.bridge in hint.devices
            or not scope.uplinks.isdisjoint(hint.devices)
            or (hint.underlay and scope.uplinks)
            or any(is_in(destination, block) for destination, _ in hint.routes for block in scope.blocks)
        ):
            found.add(network_id)
    return found


def named(devices: Iterable[str], networks: Mapping[str, Known]) -> set[str]:
    """Those whose devices of ours these are, as far as the last pass knew."""
    wanted = set(devices)
    return {id_ for id_, known in networks.items() if not wanted.isdisjoint(known.desired.links)} if wanted else set()


def gap_s(repairs: Repairs, look_s: float) -> float:
    """How long to leave it alone before the next look: longer for what is large, and for what keeps changing."""
    shortest, longest = HINT_GAP_S
    return min(longest, max(shortest, HINT_GAP_FACTOR * look_s) * float(2**repairs.doublings))


def rest_s(pass_s: float) -> float:
    """How long after a pass the next one over the same may begin."""
    return min(LONGEST_REST_S, pass_s)

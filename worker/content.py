"""What a host's report says of its networks, and whether there is anything to say, and the right store to say it to.

Put together from what the parts know whenever `worker.report` asks; never writes, and never waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from kvnet.model import NetworkObserved
from kvnet.rules import NETWORK_ID
from worker.session import NAME_TAKEN
from worker.trust import WENT_BACK

if TYPE_CHECKING:
    from worker.agent import Worker

# In doubt about these the store, or this host's place in it, is not ours, so nothing of ours belongs into it.
NOT_OUR_STORE = frozenset({"another-cluster", "cluster-missing", "store-too-new", NAME_TAKEN})
FEW_ENDPOINTS = 64  # of a network, told by name


class Content:
    """Of one worker's report."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def now(self) -> Mapping[str, NetworkObserved] | None:
        """None while there is nothing to say, or the store is not the one to say it to."""
        worker = self._worker
        doubt = worker.source.doubt()
        if not worker.reconciler.has_seen_everything or (doubt is not None and doubt.code in NOT_OUR_STORE):
            return None
        found = worker.reconciler.observed()
        if doubt is not None and doubt.code == WENT_BACK and found.keys().isdisjoint(worker.source.present()):
            return None  # an older report that is there says more than none: controllers see that its store went back
        for id_, condition in worker.docker.conditions() if worker.docker is not None else ():
            # Of a network that is not here, because Docker cannot have it, nothing is applied.
            known = found.get(id_, NetworkObserved(0))
            if NETWORK_ID.match(id_):
                found[id_] = replace(known, conditions=(*known.conditions, condition))
        return {id_: self._with_interfaces(id_, seen) for id_, seen in found.items()}

    def _with_interfaces(self, network_id: str, seen: NetworkObserved) -> NetworkObserved:
        """Which endpoints of this host have an interface, as far as that can be told in few words."""
        worker = self._worker
        tables = worker.view.tables(network_id)
        own = sorted(tables.own) if tables is not None else []
        attached = tuple(one for one in own if worker.attachments.is_attached(one))
        if len(own) - len(attached) <= FEW_ENDPOINTS:
            return replace(seen, unattached=tuple(sorted(set(own).difference(attached))))
        return replace(seen, attached=attached) if len(attached) <= FEW_ENDPOINTS else seen

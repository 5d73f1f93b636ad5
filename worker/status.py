"""What `kvnet status` shows of a worker: plain JSON, put together when somebody asks."""

from __future__ import annotations

from typing import Any

from kvnet.model import Condition
from worker.attachments import Attachments
from worker.ports import Time
from worker.reconcile import Reconciler
from worker.registration import Registration
from worker.session import Lifeline
from worker.settings import Settings
from worker.source import Mode, Source
from worker.view import View


def status(
    settings: Settings,
    view: View,
    source: Source,
    attachments: Attachments,
    reconciler: Reconciler,
    lifeline: Lifeline,
    registration: Registration,
    time: Time,
) -> dict[str, Any]:
    doubt = source.doubt()
    conditions = [{"code": doubt.code, "detail": doubt.detail}] if doubt else []
    conditions += [_condition(lifeline.problem)] if lifeline.problem else []
    stale = view.stale_since
    own = view.own
    is_live = source.mode() is Mode.LIVE
    return {
        "host": settings.host,
        "underlay": str(settings.underlay),
        "mtu": own.mtu if own else None,
        "ready": is_live and lifeline.is_open and registration.is_done and reconciler.has_seen_everything,
        "mode": source.mode().value,
        "fenced": not lifeline.is_open,
        "session": lifeline.session_id,
        "store": {
            "url": settings.store_url,
            "cluster": view.cluster.id if view.cluster else "",
            "revision": view.revision,
            "in_step": view.is_in_step and stale is None,
            "stale_seconds": round(time.monotonic() - stale, 3) if stale is not None else 0,
        },
        "networks": _networks(view, reconciler),
        "attachments": [
            {
                "endpoint": r.endpoint,
                "network": r.network,
                "network_id": r.network_id,
                "name": r.name,
                "netns": r.netns,
                "interface": r.interface,
                "phase": r.phase.value,
                "addresses": r.answer.get("addresses", []),
            }
            for r in attachments
        ],
        "conditions": conditions,
        "passes": reconciler.statistics.passes,
        "operations": reconciler.statistics.operations,
        "failures": reconciler.statistics.failures,
        "last_pass_ms": round(reconciler.statistics.last_pass_ms, 3),
        "last_full_pass_ms": round(reconciler.statistics.last_full_pass_ms, 3),
    }


def _networks(view: View, reconciler: Reconciler) -> list[dict[str, Any]]:
    found = []
    for network_id, (version, conditions) in sorted(reconciler.observed().items()):
        tables = view.tables(network_id)
        network = tables.network if tables else None
        found.append(
            {
                "id": network_id,
                "name": network.name if network else "",
                "endpoints": len(tables.endpoints.items) if tables else 0,
                "version": version,
                "wanted_version": view.version(network_id),
                "conditions": [_condition(condition) for condition in conditions],
            }
        )
    return found


def _condition(condition: Condition) -> dict[str, Any]:
    return {"code": condition.code, "detail": condition.detail, "since": condition.since}

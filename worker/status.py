"""What `kvnet status` shows of a worker: plain JSON, put together when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.url import shown
from kvnet.model import Condition
from worker.attachments import Attachments, Record
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
    others: Sequence[Condition] = (),
) -> dict[str, Any]:
    doubt = source.doubt()
    conditions = [{"code": doubt.code, "detail": doubt.detail}] if doubt else []
    conditions += [_condition(problem) for problem in (lifeline.problem, registration.problem) if problem]
    conditions += [_condition(problem) for problem in (*registration.crowding.conditions, *others)]
    own = view.own
    statistics = reconciler.statistics
    is_live = source.mode() is Mode.LIVE
    return {
        "host": settings.host,
        "underlay": str(own.underlay) if own else "",
        "segment": str(own.segment) if own and own.segment else "",
        "mtu": own.mtu if own else None,
        "ready": is_live and lifeline.is_open and registration.is_done and reconciler.has_seen_everything,
        "mode": source.mode().value,
        "fenced": not lifeline.is_open,
        "session": lifeline.session_id,
        "store": _store(settings, view, time),
        "networks": _networks(view, reconciler),
        "attachments": [_attachment(record) for record in attachments],
        "conditions": conditions,
        "passes": statistics.passes,
        "operations": statistics.operations,
        "failures": statistics.failures,
        "last_pass_ms": round(statistics.last_pass_ms, 3),
        "last_full_pass_ms": round(statistics.last_full_pass_ms, 3),
        "last_full_pass_at": statistics.last_full_pass_at,
    }


def _store(settings: Settings, view: View, time: Time) -> dict[str, Any]:
    stale = view.stale_since
    return {
        "url": shown(settings.store_url),
        "cluster": view.cluster.value.id if view.cluster else "",
        "revision": view.revision,
        "in_step": view.is_in_step and stale is None,
        "stale_seconds": round(time.monotonic() - stale, 3) if stale is not None else 0,
    }


def _attachment(record: Record) -> dict[str, Any]:
    return {
        "endpoint": record.endpoint,
        "network": record.network,
        "network_id": record.network_id,
        "name": record.name,
        "netns": record.netns,
        "interface": record.interface,
        "ports": record.answer.get("ports", []),
        "phase": record.phase.value,
        "runtime": record.runtime,
        "external": record.external,
        "addresses": record.answer.get("addresses", []),
    }


def _networks(view: View, reconciler: Reconciler) -> list[dict[str, Any]]:
    found = []
    for network_id, seen in sorted(reconciler.observed().items()):
        tables = view.tables(network_id)
        network = tables.network if tables else None
        found.append(
            {
                "id": network_id,
                "name": network.name if network else "",
                "endpoints": len(tables.endpoints.items) if tables else 0,
                "version": seen.version,
                "wanted_version": view.version(network_id),
                "conditions": [_condition(condition) for condition in seen.conditions],
            }
        )
    return found


def _condition(condition: Condition) -> dict[str, Any]:
    return {"code": condition.code, "detail": condition.detail, "since": condition.since}

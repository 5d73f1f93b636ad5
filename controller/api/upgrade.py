"""/v1/upgrade: who speaks which schema, and the step that ends an upgrade."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from controller.api import render
from controller.api.answers import UpgradeOut
from controller.api.routing import caller, problems, resource_router, service
from controller.upgrade import Look, Speaker

router = resource_router("operations")


@router.get("/upgrade", response_model=UpgradeOut, responses=problems(), summary="How far is an upgrade?")
async def get_upgrade(request: Request) -> Response:
    """Which schema everybody writes, and which each controller and each host's worker could. Nobody needs to look at
    it in a cluster of one version: there the level is the newest."""
    return render.answer(_told(service(request).cluster.upgrade.look()))


@router.post("/upgrade", response_model=UpgradeOut, responses=problems(409), summary="End an upgrade")
async def finish_upgrade(request: Request) -> Response:
    """Raises the level: everybody writes what this controller's version writes. Refused while somebody who lives does
    not speak it. From then on older versions write nothing, so there is no way back but a backup. Safe to repeat."""
    return render.answer(_told(await service(request).cluster.upgrade.finish(caller(request))))


def _told(look: Look) -> dict[str, Any]:
    return {
        "level": look.level,
        "newest": look.newest,
        "finished": look.is_finished,
        "controllers": [_speaker(one) for one in look.replicas],
        "hosts": [_speaker(one) for one in look.hosts],
        "behind": list(look.behind),
    }


def _speaker(one: Speaker) -> dict[str, Any]:
    return {"name": one.name, "version": one.version, "schema": one.schema}

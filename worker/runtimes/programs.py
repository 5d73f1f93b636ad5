"""The operations of the worker's socket that runtimes' programs carry their calls to: CNI's and netavark's.

Only puts the parts together, when the first such call comes: few hosts have both runtimes, and many neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.store import Store
from worker.attach import Attacher
from worker.attachments import Attachments
from worker.log import Log
from worker.ports import Controller, Namespaces, Time
from worker.server import Operation
from worker.settings import Settings
from worker.view import View

CNI, NETAVARK = "cni", "netavark"


def program_operations(
    settings: Settings,
    store: Store,
    controller: Controller,
    namespaces: Namespaces,
    attacher: Attacher,
    attachments: Attachments,
    view: View,
    status: Operation,
    time: Time,
    log: Log,
) -> Mapping[str, Operation]:
    known: dict[str, Operation] = {}

    def new_network_id() -> str:
        return f"{time.rng.getrandbits(48):012x}"

    def load() -> None:
        from worker.kernel.look import look_here, look_inside
        from worker.runtimes.cni.plugin import CniPlugin
        from worker.runtimes.netavark.plugin import NetavarkPlugin
        from worker.runtimes.repeatable import Looks, Repeatable

        looks = Looks(look_inside, look_here)
        hands = Repeatable(
            settings.host, attacher, controller, namespaces, attachments, view, looks, time, new_network_id
        )
        dns = "" if settings.dns is None else str(settings.dns)
        cni = CniPlugin(hands, store, status, dns=dns, log=log)
        netavark = NetavarkPlugin(hands, controller, store, new_network_id=new_network_id, dns=dns, log=log)
        known.update({CNI: cni.answer, NETAVARK: netavark.answer})

    def of(name: str) -> Operation:
        async def answer(message: Mapping[str, Any]) -> dict[str, Any]:
            if not known:
                load()
            return await known[name](message)

        return answer

    return {CNI: of(CNI), NETAVARK: of(NETAVARK)}

"""Makes an endpoint at the controller, from an intent on disk; what fails, or is interrupted, is made undone.

Shared by all who give interfaces to workloads. What comes after the endpoint is theirs; it is undone all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from typing import Any, cast

from kvnet.errors import ControllerUnreachable, KernelRefused, KvnetError, NotFound, OutcomeUnknown
from kvnet.wire import Endpoint, EndpointBody
from worker import hostports
from worker.attachments import Attachments, Phase, Record
from worker.hostports import PORT_ATTEMPTS
from worker.log import Log
from worker.ports import Controller, Listeners, Time
from worker.release import Releaser
from worker.settings import Settings

# Refusals with one of these codes promise that nothing was written.
NOT_WRITTEN = frozenset({"store-unavailable", "contention"})


@dataclass(slots=True)
class Making:
    """How far it has come. `is_repeated`: an earlier attempt may have made the endpoint already. `kept`: sockets
    that may keep the endpoint's host ports for it.
    """

    record: Record
    is_repeated: bool = False
    is_created: bool = False
    kept: Collection[int] = ()


class Maker:
    def __init__(
        self,
        settings: Settings,
        controller: Controller,
        listeners: Listeners,
        attachments: Attachments,
        releaser: Releaser,
        time: Time,
        log: Log,
    ) -> None:
        self._settings = settings
        self._controller = controller
        self._listeners = listeners
        self._attachments = attachments
        self._releaser = releaser
        self._time = time
        self._log = log

    @contextlib.asynccontextmanager
    async def undone_unless_done(
        self, record: Record, *, is_repeated: bool = False, wait_s: float = 0.0
    ) -> AsyncIterator[Making]:
        """The intent `record` is on disk. Whatever ends the block early, nothing of it is left, or it is queued to go.

        Raises:
            KernelRefused, ControllerUnreachable: the block took too long.
        """
        making = Making(record, is_repeated)
        try:
            async with asyncio.timeout(self._settings.timing.attach_s + wait_s):
                yield making
        except TimeoutError as error:
            await self._undo(making)
            raise self._too_slow(making) from error
        except KvnetError as error:
            if making.is_created or is_repeated or _may_have_been_written(error):
                await self._undo(making)
            else:
                self._attachments.forget(record.endpoint)
                self._releaser.give_up(record.endpoint)
            raise
        except asyncio.CancelledError:
            self._releaser.order(replace(making.record, is_certain=making.is_created), "interrupted")
            raise

    async def create(
        self,
        making: Making,
        network: str,
        body: EndpointBody,
        *,
        then: Phase = Phase.ATTACHING,
        chooses_ports: bool = True,
        wait_s: float = 0.0,
    ) -> Endpoint:
        """The endpoint, with ports that no program of this host has; `making.record` tells of it, in phase `then`.

        Raises:
            KvnetError: what the controller said.
            PortTaken: a program has a port, and no other would do, or none was found.
        """
        for attempt in range(1, PORT_ATTEMPTS + 1):
            endpoint = await self._controller.create_endpoint(network, body, wait_s=wait_s)
            making.is_created = True
            making.record = replace(
                making.record, network_id=endpoint["network"], answer=cast("dict[str, Any]", endpoint)
            )
            there = await hostports.who_listens(self._listeners, endpoint, making.kept)
            if there is None:
                making.record = replace(making.record, phase=then, since=self._time.now())
                self._attachments.keep(making.record)
                return endpoint
            self._attachments.keep(making.record)
            if chooses_ports or attempt == PORT_ATTEMPTS:
                raise hostports.taken(there, self._settings.host)
            self._log.info("port-taken", endpoint=making.record.endpoint, detail=str(there))
            with contextlib.suppress(NotFound):
                await self._controller.delete_endpoint(making.record.network_id, making.record.endpoint)
        raise AssertionError("the last attempt returns or raises")

    async def _undo(self, making: Making) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timing.attach_s):
                record = replace(making.record, is_certain=making.is_created)
                await self._releaser.release(record, "the attach failed")

    def _too_slow(self, making: Making) -> KvnetError:
        timeout_s = self._settings.timing.attach_s
        if making.is_created:
            return KernelRefused(
                f"the interface of {making.record.name} was not ready within {timeout_s:g} s, so the attach was undone",
                fix="'kvnet status' on this host shows what it waits for",
            )
        return ControllerUnreachable(
            f"the controller did not answer within {timeout_s:g} s, so the attach was undone",
            fix="see the controller's log",
        )


def _may_have_been_written(error: KvnetError) -> bool:
    if isinstance(error, (ControllerUnreachable, OutcomeUnknown)):
        return True
    return error.status >= 500 and error.code not in NOT_WRITTEN

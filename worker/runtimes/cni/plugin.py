"""The worker's side of `kvnet-cni`: what each of CNI's commands does.

Every answer is a result or the specification's error object, in the version that the call speaks; a fault of ours ends
in one too. Takes away what is asked for however little is left of it, and keeps nothing of its own: the attachments
are the worker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from backends.store import Store, StoreError
from kvnet import keys
from kvnet.errors import AlreadyAttached, Conflicting, Invalid, KvnetError
from kvnet.rules import NAME
from kvnet.shims.cni import VERSIONS
from worker.attachments import Phase, Record
from worker.log import Log
from worker.runtimes.cni.options import attach_request, network_to_create, object_in
from worker.runtimes.cni.refusals import BY_CODE, CniRefused, Number, shown
from worker.runtimes.cni.request import RUNTIME, Call, Command, parse_call, prefix_of, version_of
from worker.runtimes.cni.results import chained, differences, dns_of, previous_result, result_of, with_server
from worker.runtimes.repeatable import Repeatable, endpoint_of, first_error, kept_of
from worker.together import all_of
from worker.underlay import MISSING

STORE_S = 5.0
VALID = "cni.dev/valid-attachments"


class CniPlugin:
    """`status`: what `kvnet status` shows. `dns`: who is asked for names, "" where nobody answers."""

    def __init__(
        self,
        hands: Repeatable,
        store: Store,
        status: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]],
        *,
        dns: str,
        log: Log,
    ) -> None:
        self._hands = hands
        self._store = store
        self._status_of = status
        self._dns = dns
        self._log = log

    async def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """`message`: {"env": {...}, "config": {...}, "kept": [pid, ...]}.

        Returns {"output": object or None, "failed": bool}.
        """
        environment, config = message.get("env"), message.get("config")
        if not isinstance(environment, dict) or not isinstance(config, dict):
            raise Invalid("a CNI call needs 'env' and 'config'", fix="kvnet-cni sends both")
        try:
            call = parse_call(environment, config)
            return {"output": await self._do(call, kept_of(message)), "failed": False}
        except KvnetError as error:
            self._log.info(
                "cni-refused", command=str(environment.get("CNI_COMMAND"))[:16], code=error.code, detail=error.detail
            )
            return {"output": shown(error, version_of(config)), "failed": True}

    async def _do(self, call: Call, kept: frozenset[int]) -> dict[str, Any] | None:
        match call.command:
            case Command.ADD:
                return await self._add(call, kept)
            case Command.DEL:
                await self._del(call)
            case Command.CHECK:
                await self._check(call)
            case Command.GC:
                await self._gc(call)
            case Command.STATUS:
                await self._status(call)
            case Command.VERSION:
                return {"cniVersion": call.version, "supportedVersions": list(VERSIONS)}
        return None

    async def _add(self, call: Call, kept: frozenset[int]) -> dict[str, Any]:
        previous = previous_result(call.config)
        request = replace(attach_request(call, self._hands.endpoint_id(call.external)), kept=kept)
        dns = dns_of(object_in(call.config, "dns"), object_in(object_in(call.config, "runtimeConfig"), "dns"))
        try:
            made = await self._hands.attach(request, network_to_create(call))
        except Conflicting as error:
            if error.code in BY_CODE or isinstance(error, AlreadyAttached):
                raise
            raise CniRefused(Number.INTERFACE_THERE, error.detail, fix=error.fix) from error
        own = result_of(call.version, call.netns, made.inner, made.outer, with_server(dns, made.server(self._dns)))
        return own if previous is None else chained(previous, own)

    async def _del(self, call: Call) -> None:
        """Whatever the configuration says beyond the list's name, and whether the namespace is there."""
        if call.name:
            await self._hands.detach(self._hands.endpoint_id(call.external))
            return
        ending = f"/{call.container}/{call.interface}"
        for record in self._hands.records(RUNTIME):
            if record.external.endswith(ending):
                await self._hands.detach(record.endpoint)

    async def _check(self, call: Call) -> None:
        previous = previous_result(call.config)
        if previous is None:
            raise CniRefused(Number.BAD_CONFIGURATION, "CHECK needs the prevResult of its ADD")
        record = self._hands.record(call.external)
        if record is None or record.phase is not Phase.ATTACHED:
            raise CniRefused(Number.NOT_AS_IT_SHOULD, f"{call.container} is not attached to {call.network} here")
        found = await self._found(record, previous, call)
        if found:
            raise CniRefused(Number.NOT_AS_IT_SHOULD, "; ".join(found), fix="start the container anew")

    async def _found(self, record: Record, previous: Mapping[str, Any], call: Call) -> list[str]:
        found: list[str] = []
        if not self._hands.endpoint_is_stored(record):
            found.append(f"endpoint {record.endpoint} was removed from {record.network}")
        if not await self._hands.is_in(record, call.netns):
            found.append(
                f"{call.container} is attached in {record.netns}, and {call.netns} is another namespace or none"
            )
        inner = await self._hands.look(record)
        if inner is None:
            return [*found, f"{record.interface} is not in {record.netns}"]
        if not record.is_inside and await self._hands.look_outside(record) is None:
            found.append(f"{record.device}, the half of {record.interface} on the host, is gone")
        endpoint = endpoint_of(record)
        return found + differences(previous, call.interface, endpoint["mac"], endpoint["addresses"], inner)

    async def _gc(self, call: Call) -> None:
        valid = {_attachment(item) for item in _valid(call.config)}
        prefix, stale = prefix_of(call.name), list[Record]()
        for record in self._hands.records(RUNTIME):
            container, _, interface = record.external.removeprefix(prefix).rpartition("/")
            if record.external.startswith(prefix) and (container, interface) not in valid:
                stale.append(record)
        errors = list(filter(None, await all_of(map(self._dropped, stale))))
        if errors:
            raise CniRefused(Number.LEFT_BEHIND, first_error(errors), fix="repeat it")

    async def _dropped(self, record: Record) -> KvnetError | None:
        try:
            await self._hands.detach(record.endpoint)
        except KvnetError as error:
            return error
        return None

    async def _status(self, call: Call) -> None:
        told = await self._status_of({})
        conditions = [f"{c['detail']} [{c['code']}]" for c in told["conditions"]]
        if not told["ready"]:
            why = "; ".join(conditions) or f"this host's worker is not ready (mode: {told['mode']})"
            raise CniRefused(Number.UNAVAILABLE, why, fix="see 'kvnet status' on this host")
        if not NAME.match(call.network):
            raise CniRefused(Number.UNAVAILABLE, f"{call.network[:80]!r} cannot be a network's name")
        try:
            async with asyncio.timeout(STORE_S):
                is_there = await self._store.get(keys.name(call.network)) is not None
        except (StoreError, TimeoutError) as error:
            raise CniRefused(Number.UNAVAILABLE, f"the store does not answer: {error}") from error
        if not is_there and network_to_create(call) is None:
            fix = f"kvnet network create {call.network}, or the key 'create'"
            raise CniRefused(Number.UNAVAILABLE, f"there is no network {call.network}", fix=fix)
        if any(c["code"] == MISSING for c in told["conditions"]):
            raise CniRefused(Number.LIMITED, "; ".join(conditions), fix="see 'kvnet status' on this host")


def _valid(config: Mapping[str, Any]) -> list[Any]:
    """
    Raises:
        CniRefused: it is missing: nothing is taken away for want of a list.
    """
    given = config.get(VALID)
    if not isinstance(given, list):
        raise CniRefused(Number.BAD_CONFIGURATION, f"GC needs {VALID}, a list")
    return given


def _attachment(item: Any) -> tuple[str, str]:
    container, interface = (item.get("containerID"), item.get("ifname")) if isinstance(item, dict) else (None, None)
    if not isinstance(container, str) or not isinstance(interface, str):
        raise CniRefused(Number.BAD_CONFIGURATION, f"{VALID} has something that is not an attachment")
    return container, interface

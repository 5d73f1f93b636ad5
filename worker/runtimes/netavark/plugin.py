"""The worker's side of `kvnet-netavark`: what each of the commands does.

Calls nothing but the worker's own hands and the controller. A network that is created twice is one network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from backends.store import Refused, Store, StoreError
from kvnet import codec, keys
from kvnet.errors import Conflicting, Forbidden, Invalid, KvnetError, NotFound, StoreUnavailable
from kvnet.model import Network
from kvnet.rules import shown
from worker.log import Log
from worker.ports import Controller
from worker.runtimes.netavark.words import created, external_of, network_body, setup_request, status_block
from worker.runtimes.repeatable import Repeatable, kept_of, made_by_the_host


class NetavarkPlugin:
    """`dns`: who is asked for names, "" where nobody answers."""

    def __init__(
        self,
        hands: Repeatable,
        controller: Controller,
        store: Store,
        *,
        new_network_id: Callable[[], str],
        dns: str,
        log: Log,
    ) -> None:
        self._hands = hands
        self._controller = controller
        self._store = store
        self._new_network_id = new_network_id
        self._dns = dns
        self._log = log

    async def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """`message`: {"command", "netns", "input"}. Returns {"output": object or None, "failed": bool}."""
        command, netns, given = message.get("command"), message.get("netns"), message.get("input")
        if not isinstance(command, str) or not isinstance(netns, str) or not isinstance(given, dict):
            raise Invalid("a call of netavark needs 'command', 'netns' and 'input'", fix="kvnet-netavark sends them")
        try:
            match command:
                case "create":
                    return {"output": await self._create(given), "failed": False}
                case "setup":
                    return {"output": await self._setup(given, netns, kept_of(message)), "failed": False}
                case "teardown":
                    await self._hands.detach(self._hands.endpoint_id(external_of(given)))
                    return {"output": None, "failed": False}
            raise Invalid(f"unknown command {shown(command)}", fix="create, setup or teardown")
        except KvnetError as error:
            self._log.info("netavark-refused", command=command[:16], code=error.code, detail=error.detail)
            words = f"{error.detail} [{error.code}]" + (f"; {error.fix}" if error.fix else "")
            return {"output": {"error": words}, "failed": True}

    async def _create(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A network that kvnet has already is joined, if it has the subnets that were asked for, if any were.

        Raises:
            Forbidden: this host may not make networks, and takes no part in one of that name.
        """
        body = network_body(given)
        try:
            await made_by_the_host(self._controller.create_network({**body, "id": self._new_network_id()}))
        except (Conflicting, Forbidden):
            if await self._network(body["name"]) is None:
                raise
        network = await self._network(body["name"])
        if network is None:
            raise NotFound(f"network {body['name']} is gone again", fix="repeat it")
        wanted = {str(ip_network(subnet["cidr"])) for subnet in body.get("subnets", ())}
        there = {str(subnet.cidr) for subnet in network.subnets}
        if wanted and wanted != there:
            raise Conflicting(
                f"kvnet has a network {network.name} already, with {', '.join(sorted(there))}",
                fix="leave the subnets out to join it, or choose another name",
            )
        return created(given, network)

    async def _setup(self, given: Mapping[str, Any], netns: str, kept: frozenset[int]) -> dict[str, Any]:
        external = external_of(given)
        request = setup_request(given, netns, external, self._hands.endpoint_id(external))
        made = await self._hands.attach(replace(request, kept=kept))
        return status_block(made, made.server(self._dns))

    async def _network(self, name: str) -> Network | None:
        """None: there is none that this host may see.

        Raises:
            StoreUnavailable
        """
        try:
            entry = await self._store.get(keys.name(name))
            id_ = "" if entry is None else entry.value.decode("ascii", "replace")
            found = None if entry is None else await self._store.get(keys.network(id_))
        except Refused:
            return None
        except StoreError as error:
            raise StoreUnavailable(f"the store does not tell of network {name}: {error}", fix="repeat it") from error
        return None if found is None else codec.decode(Network, found.value)

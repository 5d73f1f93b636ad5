"""Which subnet a pool is: one that is held for a network to come, or one that a network has.

Docker asks for pools one by one and tells of no network yet, so the subnet is held at the controller, which alone knows
what is free; a hold that nobody uses runs out. A subnet that a network of another host has is that network, shown here
too: nothing but the subnet tells it from a new one. Never makes or removes a network.
"""

from __future__ import annotations

import asyncio

from kvnet.errors import Conflicting, Invalid, KvnetError, NotFound, SubnetTaken
from kvnet.model import Network, NetworkState
from kvnet.wire import HoldBody
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.ledger import Ledger, OwnCalls, Want
from worker.runtimes.docker.options import pool_wishes
from worker.runtimes.docker.patience import Patience
from worker.runtimes.docker.ports import ADDRESS_SPACE, Catalogue
from worker.runtimes.docker.wire import PoolRequest

HOLD_S = 60.0  # for so long the controller keeps a hold
FRESH_S = 45.0  # a younger hold of ours is good for another network
BECOMES_NETWORK_S = 3.0
LOOK_S = 0.25
RELEASE_S = 1.0  # Docker's user still waits for why it failed
# Docker asks for another pool, for ever, while a route of the host is in the way of each that it gets.
MAX_UNUSED = 64


class Pools:
    """`host`: this one's name."""

    def __init__(
        self,
        host: str,
        catalogue: Catalogue,
        ledger: Ledger,
        controller: Controller,
        own: OwnCalls,
        patience: Patience,
        *,
        time: Time,
        log: Log,
    ) -> None:
        self._host = host
        self._catalogue = catalogue
        self._ledger = ledger
        self._controller = controller
        self._own = own
        self._patience = patience
        self._time = time
        self._log = log

    async def request(self, wanted: PoolRequest) -> Want:
        """
        Raises:
            SubnetTaken: names the holder.
            KvnetError: as the controller says; nothing is held.
        """
        if wanted.space != ADDRESS_SPACE:
            raise Invalid(f"the address space {wanted.space!r} is not kvnet's", fix="use --ipam-driver kvnet")
        wishes = pool_wishes(wanted.options)
        body: HoldBody = {"host": self._host, **wishes}  # type: ignore[typeddict-item]
        if not wanted.pool:
            self._require_no_loop()
            return await self._hold({**body, "version": wanted.version}, wanted)
        if self._own.is_posting(wanted.pool):
            copied = self._catalogue.of_subnet(wanted.pool)
            if copied is not None:
                return await self._adopt(wanted, copied)
        # A copy bears the options that its subnet was once chosen by; from anybody else it is two wishes.
        choosing = sorted(wishes.keys() & {"pool", "prefix_length"})
        if choosing:
            raise Invalid(f"--ipam-opt {choosing[0]} and --subnet contradict each other", fix="leave one of them out")
        # What a host uses is judged when the network is made: only then is it known whether it is the physical one.
        version = 6 if ":" in wanted.pool else 4
        return await self._explicit({**body, "version": version, "cidr": wanted.pool, "force": True}, wanted)

    async def release(self, pool: str) -> None:
        """What became a network stays that; a hold that the controller is not told of runs out."""
        want = self._ledger.want(pool)
        if want is None:
            return
        await self._ledger.drop(pool)
        if want.hold:
            try:
                async with asyncio.timeout(RELEASE_S):
                    await self._controller.release_hold(want.hold)
            except KvnetError as error:
                self._log.warning(
                    "docker-hold-runs-out", subnet=pool, hold=want.hold, code=error.code, detail=error.detail
                )
            except TimeoutError:
                self._log.warning(
                    "docker-hold-runs-out", subnet=pool, hold=want.hold, detail="the controller is silent"
                )

    async def _explicit(self, body: HoldBody, wanted: PoolRequest) -> Want:
        former = self._ledger.want(wanted.pool)
        if former is not None and former.hold and 0 <= self._time.now() - former.since < FRESH_S:
            return former  # of a command that runs at the same time, or was cut short
        until = self._time.monotonic() + BECOMES_NETWORK_S
        while True:
            try:
                return await self._hold(body, wanted)
            except SubnetTaken as error:
                network = self._catalogue.of_subnet(wanted.pool)
                if network is not None and network.state is not NetworkState.DELETING:
                    return await self._adopt(wanted, network)
                if self._time.monotonic() >= until or not self._passes(error, wanted.pool, network):
                    raise
            await self._patience.until(lambda: self._catalogue.of_subnet(wanted.pool), LOOK_S)
            await self._time.sleep(self._time.jittered(LOOK_S / 5))

    def _passes(self, taken: SubnetTaken, pool: str, network: Network | None) -> bool:
        """Whether who is in the way may soon be a network to adopt, or gone."""
        if taken.context.get("hold"):
            return str(taken.context.get("cidr", pool)) == pool
        holder = str(taken.context.get("network") or "")
        return network is not None or (holder != "" and holder not in self._catalogue.networks)

    async def _hold(self, body: HoldBody, wanted: PoolRequest) -> Want:
        hold = await self._controller.hold_subnet(body)
        want = Want(hold["cidr"], hold["id"], self._time.now(), range=wanted.range, is_automatic="cidr" not in body)
        await self._ledger.keep(want)
        return want

    async def _adopt(self, wanted: PoolRequest, network: Network) -> Want:
        """
        Raises:
            SubnetTaken: this Docker has the network already.
        """
        bound = self._ledger.bindings_of(network.id)
        if bound and not self._own.is_posting(wanted.pool):
            raise SubnetTaken(
                f"{wanted.pool} is the network {described(network)}, which this host's Docker has already",
                fix="use that one ('docker network ls'), or choose another --subnet, or leave it out",
                context={"network": network.id, "name": network.name},
            )
        want = Want(wanted.pool, "", self._time.now(), range=wanted.range)
        await self._ledger.keep(want)
        return want

    def _require_no_loop(self) -> None:
        now = self._time.now()
        unused = [w for w in self._ledger.wants() if w.is_automatic and not w.is_used and now - w.since < HOLD_S]
        if len(unused) >= MAX_UNUSED:
            raise Conflicting(
                f"Docker has refused {len(unused)} subnets in a row: a route or name server of this host is in the way",
                fix="give --subnet, or --ipam-opt pool=NAME of another pool ('kvnet pool ls')",
            )

    async def forget_old(self) -> None:
        """Wants of commands that were cut short: their holds have run out."""
        for want in self._ledger.wants():
            if self._time.now() - want.since > HOLD_S:
                await self._ledger.drop(want.cidr)

    def network_of(self, pool: str) -> str:
        """The id of the network that has the pool, by what Docker was told.

        Raises:
            NotFound: Docker was given no such pool.
        """
        bound = self._ledger.bound_to(pool)
        if bound is None:
            raise NotFound(
                f"{pool} is no kvnet network of this host's Docker",
                fix="'docker network create' needs both -d kvnet and --ipam-driver kvnet; remove the network and make "
                "it again",
            )
        return bound.network


def described(network: Network) -> str:
    if network.state is NetworkState.NAMING:
        return f"that is being made on {network.docker.host}" if network.docker is not None else network.id
    return network.name

"""What must be so after the faults: all that was acknowledged is there, nothing else is, nothing is left behind.

First the site gets the time to settle. Then the ledger is compared with every controller, with the store's keys and
with the kernels; then all that users made is removed, and every host and the store must be what they were before
them: any object more is a leak, any object less a loss. The eyes are netlink dumps, pyroute2 and `nft`, not the
product's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from kvnet.errors import KvnetError, Unfit
from lab.lab import until
from tests.lab.chaos.facts import Eye, Fact
from tests.servers.places import NoAnswer
from tests.soak import raw
from tests.soak.churn import LABEL, User
from tests.soak.eye import addresses_in
from tests.soak.ledger import UNSURE, Endpoint, Ledger, Standing, ports_text
from tests.soak.settings import SETTLED_WITHIN_S
from tests.soak.site import Soaked
from tests.soak.violations import Violations

# What users' doings leave in the store while it lasts, and nothing afterwards.
OWNED = (
    "pools/",
    "subnets/",
    "names/",
    "vnis/",
    "bridges/",
    "networks/",
    "blocks/",
    "addresses/",
    "endpoints/",
    "local/",
    "ports/",
    "reclaims/",
    "questions/",
)
KERNEL_KINDS = frozenset({"link", "port", "address", "route", "neighbour", "forwarding", "element"})
REACH_S = 20.0
MOST_SHOWN = 6
POLL_S = 0.5


class Verdict:
    """`eyes`: one for each host. `careful`: a user who asks until what is doubtful is gone."""

    def __init__(
        self, site: Soaked, ledger: Ledger, violations: Violations, eyes: Mapping[str, Eye], careful: User
    ) -> None:
        self._site = site
        self._ledger = ledger
        self._violations = violations
        self._eyes = eyes
        self._careful = careful

    async def facts(self) -> dict[str, frozenset[Fact]]:
        return {host: await eye.facts() for host, eye in self._eyes.items()}

    async def owned_keys(self) -> frozenset[str]:
        return frozenset(key for key in await raw.keys_of(self._site) if key.startswith(OWNED))

    # settling

    async def until_settled(self) -> None:
        """Everybody is ready, nothing is doubtful, and no host has anything left to do."""
        try:
            await self._site.until_all_ready(SETTLED_WITHIN_S)
        except Unfit as error:
            self._violations.blame("not-recovered", str(error))
        if not await self._holds(self._nothing_doubtful, SETTLED_WITHIN_S):
            ids = [f"{e.name} ({e.id})" for e in self._ledger.idle_endpoints(Standing.DOUBTFUL)]
            ids += [f"{n.name} ({n.id})" for n in self._ledger.idle_networks(Standing.DOUBTFUL)]
            self._violations.blame("cannot-be-ended", f"nobody acknowledges the end of {_some(ids)}")
        if not await self._holds(self._nothing_to_do, SETTLED_WITHIN_S):
            self._violations.blame("not-converged", "; ".join(await self._what_is_to_do()))

    async def _nothing_doubtful(self) -> bool:
        await self._remove_late_arrivals()  # each keeps the network from going that it came to
        return await self._careful.resolve_once(empties=True) == 0

    async def _nothing_to_do(self) -> bool:
        return not await self._what_is_to_do()

    async def _what_is_to_do(self) -> list[str]:
        found = []
        for name, host in self._site.lab.hosts.items():
            try:
                status, plan = await host.local.status(), await host.local.plan()
            except KvnetError as error:
                found.append(f"{name}: {error}")
                continue
            found += [f"{name}: would {operation}" for operation in plan["operations"][:MOST_SHOWN]]
            found += [f"{name}: {condition['code']}: {condition['detail']}" for condition in status["conditions"]]
            for network in status["networks"]:
                found += [f"{name}: {network['name']}: {c['code']}: {c['detail']}" for c in network["conditions"]]
                if network["version"] < network["wanted_version"]:
                    found.append(f"{name}: {network['name']} is behind")
        return found

    async def _holds(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        async def is_so() -> bool:
            try:
                return await condition()
            except KvnetError:
                return False

        try:
            async with asyncio.timeout(seconds):
                while not await is_so():  # noqa: ASYNC110 - kernels and stores tell nobody
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    async def require_one_store(self) -> None:
        """Its servers agree with each other. Where they do not, nothing else that is found says much about kvnet."""
        stubborn: frozenset[str] | None = None
        silent = ""

        async def agrees() -> bool:
            nonlocal stubborn, silent
            try:
                now = await raw.differing(self._site)
            except NoAnswer as error:
                silent = str(error)
                return False
            stubborn = now if stubborn is None else stubborn & now  # what changes meanwhile differs now and then
            return not stubborn

        if not await self._holds(agrees, SETTLED_WITHIN_S):
            why = (
                f"its servers do not answer: {silent}"
                if stubborn is None
                else f"its servers differ in {_some(stubborn)}"
            )
            self._violations.blame("store-diverged", why)

    # what was acknowledged

    async def require_what_was_acknowledged(self) -> None:
        """By the word of every controller, and in the kernels."""
        await self.require_one_store()
        await self._remove_late_arrivals()
        for controller in self._site.controllers:
            async with controller.client as client:
                await self._holds_the_same(controller.name, client)
                self._compare_endpoints(controller.name, {e["id"]: e async for e in client.endpoints()})
                self._compare_networks(controller.name, {n["id"]: n async for n in client.networks()})
                report = await client.check()
                for finding in report["findings"]:
                    self._violations.blame("check", f"{controller.name}: {finding}")
        self._compare_kernels()
        await self._require_reached()

    async def _holds_the_same(self, name: str, client: Any) -> None:
        """A replica may lag behind the one that acknowledged; not for long."""
        wanted = {e.id for e in self._ledger.endpoints.values() if e.standing is Standing.LIVE}

        async def has_all() -> bool:
            return {e["id"] async for e in client.endpoints()} == wanted

        await self._holds(has_all, REACH_S)

    async def _remove_late_arrivals(self) -> None:
        """What a frozen controller did when nobody waited for it any more: it may, and its user removes it."""
        client = self._site.lab.client
        known = {id_ for id_, e in self._ledger.endpoints.items() if e.standing is not Standing.GONE}
        for endpoint in [e async for e in client.endpoints()]:
            if endpoint["id"] in self._ledger.may_appear - known:
                await client.delete_endpoint(endpoint["network"], endpoint["id"])
        known = {id_ for id_, n in self._ledger.networks.items() if n.standing is not Standing.GONE}
        for network in [n async for n in client.networks()]:
            if network["id"] in self._ledger.may_appear - known:
                await client.delete_network(network["id"])

    def _compare_endpoints(self, who: str, there: Mapping[str, Any]) -> None:
        live = {id_: e for id_, e in self._ledger.endpoints.items() if e.standing is Standing.LIVE}
        for id_, mine in live.items():
            told = there.get(id_)
            if told is None:
                self._violations.blame(
                    "lost", f"{who}: endpoint {mine.name} ({id_}) was acknowledged, and is not there"
                )
                continue
            self._same(who, f"endpoint {mine.name} ({id_})", "addresses", set(told["addresses"]), set(mine.addresses))
            self._same(who, f"endpoint {mine.name} ({id_})", "host", told["host"], mine.host)
            self._one_of(who, f"label of endpoint {mine.name} ({id_})", told["labels"].get(LABEL, ""), mine.labels)
            if UNSURE not in mine.ports:
                self._one_of(who, f"ports of {mine.name} ({id_})", ports_text(told["ports"]), mine.ports)
        for id_, told in there.items():
            if id_ not in live:
                was = self._ledger.endpoints.get(id_)
                state = was.standing if was is not None else "refused, or never asked for"
                detail = f"{who}: endpoint {told['name']} ({id_}) on {told['host']} is there, and was {state}"
                self._violations.blame("leaked-endpoint", detail)

    def _compare_networks(self, who: str, there: Mapping[str, Any]) -> None:
        live = {id_: n for id_, n in self._ledger.networks.items() if n.standing is Standing.LIVE}
        for id_, mine in live.items():
            told = there.get(id_)
            if told is None:
                self._violations.blame("lost", f"{who}: network {mine.name} ({id_}) was acknowledged, and is not there")
                continue
            about = f"network {mine.name} ({id_})"
            self._same(who, about, "name", told["name"], mine.name)
            self._same(who, about, "subnets", {s["cidr"] for s in told["subnets"]}, set(mine.cidrs))
            self._one_of(who, f"label of {about}", told["labels"].get(LABEL, ""), mine.labels)
            for pair, is_peer in self._ledger.peers.items():
                if id_ in pair and is_peer is not None:
                    (other,) = pair - {id_}
                    self._same(
                        who, f"{about} and {other}", "peers", other in {peer["id"] for peer in told["peers"]}, is_peer
                    )
        for id_, told in there.items():
            if id_ not in live:
                self._violations.blame("leaked-network", f"{who}: network {told['name']} ({id_}) is there")

    def _same(self, who: str, about: str, what: str, told: object, mine: object) -> None:
        if told != mine:
            self._violations.blame("changed", f"{who}: {what} of {about}: acknowledged {mine}, there is {told}")

    def _one_of(self, who: str, about: str, told: str, mine: list[str]) -> None:
        if told not in mine:
            self._violations.blame("lost", f"{who}: {about}: acknowledged {mine[0]!r}, there is {told!r}")

    def _compare_kernels(self) -> None:
        """Each workload has what was acknowledged, and who was refused or detached has nothing."""
        living = {e.workload: e for e in self._ledger.endpoints.values() if e.workload and e.standing is Standing.LIVE}
        for name, workload in self._site.lab.workloads.items():
            there = {address for address in addresses_in(workload.netns) if not address.startswith("fe80:")}
            endpoint = living.get(name)
            if endpoint is None and there:
                self._violations.blame(
                    "leaked-interface", f"{name} on {workload.host} has {sorted(there)}, and no endpoint"
                )
            elif endpoint is not None and there != set(endpoint.addresses):
                detail = f"{name} on {workload.host}: acknowledged {endpoint.addresses}, its kernel has {sorted(there)}"
                self._violations.blame("kernel-differs", detail)

    async def _require_reached(self) -> None:
        """Every attached endpoint answers another one of its network, where there is one that can reach it."""
        living = [e for e in self._ledger.endpoints.values() if e.workload and e.standing is Standing.LIVE]
        for target in living:
            sources = [e for e in living if e is not target and e.network is target.network]
            if target.network.driver == "bridge":
                sources = [e for e in sources if e.host == target.host]
            for source in sources[:1]:
                await self._require_answer(source, target)

    async def _require_answer(self, source: Endpoint, target: Endpoint) -> None:
        async def is_reached() -> bool:
            return (await self._site.lab.ping(source.workload, target.addresses[0], timeout_s=1.0)).ok

        try:
            await until(is_reached, "", seconds=REACH_S)
        except Unfit:
            detail = (
                f"{source.name} on {source.host} does not reach {target.name} ({target.addresses[0]}) on {target.host}"
            )
            self._violations.blame("not-reached", f"{detail}, network {target.network.name} ({target.network.driver})")

    # leaks

    async def remove_what_users_made(self) -> None:
        for endpoint in self._ledger.idle_endpoints():
            await self._careful.end("detach" if endpoint.workload else "delete-endpoint", endpoint)
        for pair in list(self._ledger.peers):
            if len(pair) == 2 and all(self._ledger.networks[id_].is_stage for id_ in pair):
                one, other = sorted(pair)
                await self._site.lab.client.unpeer_networks(one, other)
        for network in [n for n in self._ledger.idle_networks() if not n.is_stage]:
            await self._careful.end_network(network)
        await self.until_settled()

    async def remove_stage(self) -> None:
        for endpoint in [e for e in self._ledger.endpoints.values() if e.standing is Standing.LIVE]:
            await self._careful.end("detach", endpoint)
        for network in [n for n in self._ledger.networks.values() if n.standing is Standing.LIVE]:
            await self._careful.end_network(network)

    async def require_as_before(
        self, when: str, facts: Mapping[str, frozenset[Fact]], keys: frozenset[str], kinds: frozenset[str] = frozenset()
    ) -> None:
        """Kernels and store are again what they were. `kinds`: only these facts (none: all of them)."""

        def chosen(of: Iterable[Fact]) -> frozenset[Fact]:
            return frozenset(fact for fact in of if not kinds or fact[0] in kinds)

        async def is_so() -> bool:
            now = await self.facts()
            return all(chosen(now[host]) == chosen(facts[host]) for host in now) and await self.owned_keys() == keys

        if await self._holds(is_so, SETTLED_WITHIN_S):
            return
        for host, now in (await self.facts()).items():
            self._differs(
                f"{when}, {host}",
                "kernel-objects",
                chosen(now) - chosen(facts[host]),
                chosen(facts[host]) - chosen(now),
            )
        there = await self.owned_keys()
        self._differs(when, "keys", there - keys, keys - there)

    def _differs(self, where: str, what: str, more: frozenset[Any], less: frozenset[Any]) -> None:
        if more:
            self._violations.blame(f"leaked-{what}", f"{where}: {len(more)} more: {_some(map(str, more))}")
        if less:
            self._violations.blame(f"missing-{what}", f"{where}: {len(less)} less: {_some(map(str, less))}")


def _some(words: Iterable[str]) -> str:
    found = sorted(words)
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return ", ".join(found[:MOST_SHOWN]) + more

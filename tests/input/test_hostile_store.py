"""Somebody who has the store writes nonsense into it, key by key, while controllers and workers run.

One object suffers; the processes live, everything else goes on, the damage is told, and what is put right is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvnet import codec, keys
from tests import stores
from tests.input.hostile import damaged, lies
from tests.input.site import Site, a_site, until

if TYPE_CHECKING:
    from tests.store.real import Clusters

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SEED = 20261129
LIES = 6  # a key
EXAMINED_KEYS = 2  # of each prefix
READS = (
    *("/v1/networks", "/v1/endpoints", "/v1/hosts", "/v1/pools", "/v1/ipam", "/v1/status", "/v1/holds"),
    *("/v1/journal", "/v1/networks/web", "/v1/networks/other", "/v1/networks/far/convergence", "/metrics"),
    *("/v1/networks/web/endpoints", "/v1/networks/web/reservations", "/v1/hosts/h1/ports", "/v1/store-state"),
    *("/v1/networks/far", "/v1/hosts/a", "/v1/ipam/addresses/10.60.1.7", "/v1/networks/web/endpoints/e-web"),
)
# What `kvnet check` decodes; the rest is rewritten by whoever owns it, within its interval.
CHECKED = (
    *(keys.NETWORKS, keys.ENDPOINTS, keys.ADDRESSES, keys.SUBNETS, keys.POOLS, keys.NAMES, keys.VNIS, keys.LOCAL),
    *(keys.BLOCKS, keys.PORTS),
)
TOLD = (keys.NETWORKS, keys.ENDPOINTS, keys.ADDRESSES, keys.SUBNETS, keys.POOLS, keys.BLOCKS, keys.PORTS)
# The sentinel is no object: without it nothing is believed. Sessions and questions belong to who watches over them.
LEFT_OUT = (keys.CLUSTER,)


@pytest.fixture(scope=stores.loop_scope)
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(store_name: str, tmp_path: Path, clusters: Clusters) -> AsyncIterator[Site]:
    url = await stores.fresh_url(store_name, tmp_path, clusters)
    async with a_site(url, tmp_path, "a", "b") as made:
        await furnish(made)
        yield made


async def furnish(site: Site) -> None:
    """One of everything: the networks `web`, `far` and `plain` are for damage, `other` is to go on."""
    api = site.api
    await api.network(name="web", subnets=[{"cidr": "10.60.1.0/24", "reserved": {"printer": "10.60.1.9"}}])
    await api.network(name="other", subnets=[{"cidr": "10.60.2.0/24"}])
    await api.network(name="far", driver="routed", subnets=[{"cidr": "10.61.0.0/16"}])
    await api.network(name="plain", driver="bridge", bridge_name="br-plain", labels={"team": "a"})
    assert (await api.post("/v1/networks/web/peers/far")).status_code < 300
    ports = [{"port": 80, "protocol": "tcp", "host_port": 8080}]
    await api.endpoint("web", id="e-web", host="h1", name="e-web", address="10.60.1.7", ports=ports, aliases=["w"])
    await api.endpoint("far", id="e-far", host="h1", name="e-far")
    gone = await api.endpoint("web", host="h1")
    assert (await api.delete(f"/v1/networks/web/endpoints/{gone['id']}")).status_code == 204
    reserved = {"name": "r1", "address": "10.60.1.20"}
    assert (await api.post("/v1/networks/web/reservations", reserved)).status_code < 300
    for network in ("web", "far", "other"):
        for member in site.members.values():
            await member.attach(network, f"{network}-{member.host.name}")


def chosen(values: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """Some keys of every prefix, but none of the network that is to go on."""
    found: dict[str, list[str]] = {}
    for key in sorted(values):
        if key not in LEFT_OUT and not key.startswith(keys.SECRETS):
            found.setdefault(key[: key.find("/") + 1], []).append(key)
    picked = [key for some in found.values() for key in rng.sample(some, min(EXAMINED_KEYS, len(some)))]
    return {key: values[key] for key in sorted(picked)}


async def goes_on(site: Site, what: str, reads: Iterable[str] = READS) -> None:
    """No process has ended, nothing is answered with a server's error, and there is work that is done."""
    for member in site.members.values():
        member.require_alive()
    for path in ("/livez", *reads):
        answer = await site.api.get(path)
        assert answer.status_code < 500 or answer.json()["code"] == "store-broken", (what, path, answer.text)
    made = await site.api.post("/v1/networks/other/endpoints", {"host": "h2", "name": site.api.fresh("x")})
    assert made.status_code == 201, (what, made.text)
    removed = await site.api.delete(f"/v1/networks/other/endpoints/{made.json()['id']}")
    assert removed.status_code == 204, (what, removed.text)
    for member in site.members.values():
        assert (await member.status())["host"] == member.host.name


async def is_told(site: Site, key: str) -> bool:
    warnings = (await site.api.get("/v1/status")).json()["warnings"]
    return any(one["code"] == "values-unreadable" and key in one["detail"] for one in warnings)


async def findings(site: Site) -> list[dict[str, Any]]:
    answer = await site.api.get("/v1/ipam/check")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["findings"]
    return found


def of_other(values: dict[str, bytes], other: str) -> set[str]:
    return {key for key, value in values.items() if other in key or value == other.encode()}


async def test_one_damaged_value_degrades_one_object_and_ends_no_process(site: Site) -> None:
    rng = random.Random(SEED)
    other = (await site.api.get("/v1/networks/other")).json()["id"]
    values = await site.values()
    kept_out = {*of_other(values, other), keys.name("other"), keys.host("h2"), "subnets/10.60.2.0_24"}
    for key, value in chosen({k: v for k, v in values.items() if k not in kept_out}, rng).items():
        original = await site.read(key) or value
        for what, bad in [*damaged(original), *lies(original, rng, LIES)]:
            await site.write(key, bad[:250_000])
            await goes_on(site, f"{key}: {what}", rng.sample(READS, 3))
        await site.write(key, b'{"v":1,"damaged')
        await goes_on(site, f"{key}: damaged")
        if key.startswith(CHECKED):
            assert key in {k for finding in await findings(site) for k in finding["keys"]}, key
        if key.startswith(TOLD):
            await until(partial(is_told, site, key), what=f"the status tells that {key} is damaged")
        await site.write(key, original)
        await goes_on(site, f"{key}: put right")

    async def is_right() -> bool:
        return not await findings(site)

    await until(is_right, what="nothing is wrong any more")
    for member in site.members.values():
        await member.attach("web", f"late-{member.host.name}")
        await until(lambda member=member: not member.conditions(other), what="no host tells of damage")


async def test_what_the_journal_or_an_endpoint_still_knows_is_repaired(site: Site) -> None:
    web = (await site.api.get("/v1/networks/web")).json()["id"]
    damaged_keys = [
        keys.network(web),
        keys.endpoint(web, "e-web"),
        f"{keys.ADDRESSES}{web}/10.60.1.7",
        f"{keys.ADDRESSES}{web}/10.60.1.20",
        keys.local("h1", "e-web"),
    ]
    before = {key: await site.read(key) for key in damaged_keys}
    for key in damaged_keys:
        await site.write(key, b"\xff garbage")
    await until(partial(is_told, site, keys.network(web)), what="the damage is told")
    assert (await site.api.get("/v1/networks/web")).status_code == 404

    repaired = set[str]()
    while (report := (await site.api.post("/v1/ipam/check?repair=true")).json())["repaired"]:
        repaired |= {key for one in report["repaired"] for key in one["keys"]}
    assert repaired >= set(damaged_keys)
    assert report["findings"] == []
    for key in damaged_keys:
        found, was = await site.read(key), before[key]
        assert found is not None
        assert was is not None
        if key.startswith(keys.LOCAL):
            assert found == was
        else:
            assert json.loads(codec.unstamped(found)) == json.loads(codec.unstamped(was)), key
    await until(partial(is_there, site), what="the network is there again")
    for member in site.members.values():
        await until(lambda member=member: not member.conditions(web), what="no host tells of damage")


async def is_there(site: Site) -> bool:
    found = await site.api.get("/v1/networks/web/endpoints/e-web")
    return found.status_code == 200


async def test_what_a_newer_version_wrote_is_not_damage(site: Site) -> None:
    web = (await site.api.get("/v1/networks/web")).json()["id"]
    await site.write(keys.network(web), b'{"v":9999,"id":"from the future"}')

    report = (await site.api.post("/v1/ipam/check?repair=true")).json()

    assert keys.network(web) in {key for one in report["findings"] for key in one["keys"]}
    assert await site.read(keys.network(web)) == b'{"v":9999,"id":"from the future"}'


async def test_what_a_process_says_of_itself_is_said_again(site: Site) -> None:
    told = (keys.alive("a"), keys.host("a"), keys.LEADER)
    before = {key: json.loads(await site.read(key) or b"{}") for key in told}
    for key in told:
        await site.write(key, b"\xff garbage")
    site.members["a"].worker.registration.look_again()

    async def is_said_again(key: str) -> bool:
        found = await site.read(key)
        return found is not None and found.startswith(b"{") and json.loads(found).keys() == before[key].keys()

    for key in told:
        await until(partial(is_said_again, key), seconds=60.0, what=f"{key} is as it was")

"""On a real kernel: one of two hosts turns hostile with the credential that it has, and the other notices nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from backends.gateway import GatewayStore
from backends.store import Delete, Put, Refused, SessionLost, StoreError
from kvnet import codec, keys
from kvnet.errors import KvnetError
from kvnet.model import Alive, Endpoint, Host
from lab.lab import Lab, open_lab, until
from tests.lab.eye import look
from tests.lab.security.joined import as_hosts, refusals
from worker.controller import HttpController
from worker.ports import Time

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Lab, dict[str, str]]]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        tokens = await as_hosts(made)
        await made.client.create_network({"name": "net", "driver": "overlay"})
        for name, host in (("c1", "h1"), ("c2", "h2")):
            await made.add_workload(name, host)
            await made.attach("net", name)
        await until(lambda: reaches(made), "c1 reaches c2")
        yield made, tokens


async def reaches(lab: Lab) -> bool:
    return (await lab.ping("c1", lab.address_of("c2", "net"), timeout_s=0.3)).ok


async def test_a_hostile_host_takes_nothing_of_another_and_its_kernel_stays_as_it_is(
    lab: tuple[Lab, dict[str, str]],
) -> None:
    site, tokens = lab
    theirs = site.workloads["c2"].endpoints["net"]
    mine = site.workloads["c1"].endpoints["net"]
    network = str(theirs["network"])
    before, session = look(site.hosts["h2"].netns), str((await site.hosts["h2"].local.status())["session"])

    async with GatewayStore(site.controller_url, token=tokens["h1"]) as store:
        controller = HttpController(site.controller_url, token=tokens["h1"], time=Time())
        record = codec.decode(Host, (await store.get("hosts/h1")).value)  # type: ignore[union-attr]
        stolen = Endpoint(
            str(theirs["id"]), network, "h1", "c2", (ip_address(str(theirs["address"])),), str(theirs["mac"]), 1.0
        )
        wanted = {"host": "h1", "name": "evil", "id": "evil"}
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: store.commit([], [Put(keys.endpoint(network, stolen.id), codec.encode(stolen))]),
            lambda: store.commit([], [Delete(keys.endpoint(network, stolen.id))]),
            lambda: store.commit([], [Put("hosts/h1", codec.encode(replace(record, underlay=h2(site))))]),
            lambda: store.commit([], [Put("hosts/h2", codec.encode(replace(record, name="h2")))]),
            lambda: store.commit([], [Put("alive/h2", codec.encode(Alive("h2", "evil", 1.0)), session)]),
            lambda: store.commit([], [Delete("alive/h2")]),
            lambda: store.session(15, resume=session),
            lambda: store.get("alive/h2"),
            lambda: store.list("local/h2/"),
            lambda: controller.delete_endpoint("net", stolen.id),
            lambda: controller.update_endpoint("net", stolen.id, {"name": "evil"}),
            lambda: controller.update_endpoint("net", str(mine["id"]), {"address": str(theirs["address"])}),
            lambda: controller.create_endpoint("net", {**wanted, "host": "h2"}),  # type: ignore[typeddict-item]
            lambda: controller.create_endpoint("net", {**wanted, "address": str(theirs["address"])}),  # type: ignore[typeddict-item]
            lambda: controller.create_endpoint("net", {**wanted, "mac": str(theirs["mac"])}),  # type: ignore[typeddict-item]
            lambda: controller.create_endpoint("net", {**wanted, "id": stolen.id}),  # type: ignore[typeddict-item]
        ]
        for number, attempt in enumerate(attempts):
            with pytest.raises((StoreError, KvnetError)) as refused:
                await attempt()
            assert isinstance(refused.value, Refused | SessionLost | KvnetError), f"{number}: {refused.value!r}"
        await controller.close()

    assert await reaches(site)
    assert look(site.hosts["h2"].netns) == before
    assert (await site.hosts["h2"].local.status())["session"] == session
    assert {e["id"]: e["host"] async for e in site.client.endpoints()} == {mine["id"]: "h1", theirs["id"]: "h2"}
    assert refusals(site) == []


def h2(site: Lab) -> object:
    return ip_address(str(site.hosts["h2"].port.underlay))


async def test_a_credential_that_is_taken_away_costs_the_workloads_nothing(lab: tuple[Lab, dict[str, str]]) -> None:
    """The host is out of the cluster within two seconds; what runs there runs on until somebody decides otherwise."""
    site, tokens = lab
    before = look(site.hosts["h1"].netns)
    await site.client.delete_token("token-h1")

    async def is_out() -> bool:
        async with GatewayStore(site.controller_url, token=tokens["h1"]) as store:
            try:
                await store.get("hosts/h1")
            except Refused:
                return True
        return False

    await until(is_out, "the token is good for nothing", seconds=2.0)
    assert look(site.hosts["h1"].netns) == before
    assert await reaches(site)

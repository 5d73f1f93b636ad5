"""Lists of several plugins, as a runtime runs them: Debian's reference plugins after ours."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from tests.cni.calling import Answer, Programs, run
from tests.cni.podman import CNI_PLUGINS
from tests.lab.coexistence.programs import libraries, make_wrappers
from tests.lab.eye import by_hand, everything
from tests.lab.worker.bench import until_answers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
VERSION = "1.0.0"  # the newest that Debian's plugins speak


@dataclass(frozen=True, slots=True)
class Chain:
    """Runs every plugin of a list, in the host's namespace, as libcni does."""

    host: Path
    folders: Sequence[Path]
    plugins: Sequence[Mapping[str, Any]]
    path: str

    async def add(self, netns: Path) -> dict[str, Any]:
        result: dict[str, Any] | None = None
        for plugin in self.plugins:
            result = (await self._call("ADD", plugin, netns, result)).result
        assert result is not None
        return result

    async def check(self, netns: Path, result: Mapping[str, Any]) -> list[Answer]:
        return [await self._call("CHECK", plugin, netns, result) for plugin in self.plugins]

    async def delete(self, netns: Path, result: Mapping[str, Any]) -> None:
        for plugin in reversed(self.plugins):
            answer = await self._call("DEL", plugin, netns, result)
            assert answer.status == 0, answer.said

    async def _call(
        self, command: str, plugin: Mapping[str, Any], netns: Path, previous: Mapping[str, Any] | None
    ) -> Answer:
        config = {"cniVersion": VERSION, "name": "pods", **plugin}
        if previous is not None:
            config["prevResult"] = dict(previous)
        program = next(folder / plugin["type"] for folder in self.folders if (folder / plugin["type"]).exists())
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": ":".join(map(str, self.folders)),
            "LD_LIBRARY_PATH": libraries(),
            "PATH": self.path,
        }
        nsenter = [f"--net={self.host}", "--", str(program)]
        return await run(Path("/usr/bin/nsenter"), json.dumps(config).encode(), environment, *nsenter)


@pytest.fixture
def chain(lab: Lab, programs: Programs, tmp_path: Path) -> Callable[..., Chain]:
    wrappers = tmp_path / "iptables"
    wrappers.mkdir()
    make_wrappers(wrappers)
    ours = {"type": "kvnet-cni", "socket": str(lab.hosts["h1"].socket)}
    path = f"{wrappers / 'nft'}:{os.environ['PATH']}"

    def make(*plugins: Mapping[str, Any]) -> Chain:
        return Chain(lab.hosts["h1"].netns, (programs.folder, CNI_PLUGINS), (ours, *plugins), path)

    return make


@pytest.fixture
async def netns(lab: Lab) -> AsyncIterator[Path]:
    workload = await lab.add_workload("web", "h1", serve=True)
    yield workload.netns
    await lab.remove_workload("web")
    assert [e async for e in lab.client.endpoints()] == []


async def test_tuning_changes_what_we_made_and_check_knows_it(chain: Callable[..., Chain], netns: Path) -> None:
    listed = chain({"type": "tuning", "mac": "02:00:00:00:00:99", "mtu": 1400})
    result = await listed.add(netns)
    assert result["interfaces"][1]["mac"] == "02:00:00:00:00:99"
    for answer in await listed.check(netns, result):
        answer.require_quiet()

    by_hand(netns, lambda ip: ip.link("set", index=ip.link_lookup(ifname="eth0")[0], address="02:00:00:00:00:98"))
    assert (await listed.check(netns, result))[0].code == 110
    await listed.delete(netns, result)
    assert set(everything(netns).links) == {"lo"}


async def test_portmap_publishes_with_iptables_what_we_attached(
    lab: Lab, chain: Callable[..., Chain], netns: Path
) -> None:
    ports = {"portMappings": [{"hostPort": 8895, "containerPort": 8080, "protocol": "tcp"}]}
    listed = chain({"type": "portmap", "runtimeConfig": ports})
    result = await listed.add(netns)
    ours, _ = await listed.check(netns, result)  # portmap 1.1.1 looks for its IPv4 rules among those for IPv6
    ours.require_quiet()
    await until_answers(lab, "outside", str(lab.hosts["h1"].port.underlay4), 8895)
    await listed.delete(netns, result)
    assert not await lab.answers("outside", str(lab.hosts["h1"].port.underlay4), 8895)


async def test_an_interface_of_another_plugin_stays_and_ours_comes_beside_it(
    lab: Lab, chain: Callable[..., Chain], netns: Path, tmp_path: Path
) -> None:
    subnet = [[{"subnet": "10.93.0.0/24"}]]
    ptp = {"type": "ptp", "ipam": {"type": "host-local", "ranges": subnet, "dataDir": str(tmp_path / "ipam")}}
    first = chain(ptp)
    both = Chain(first.host, first.folders, (ptp, {**first.plugins[0]}), first.path)
    answer = await both._call("ADD", both.plugins[0], netns, None)
    assert (await both._call("ADD", both.plugins[1], netns, answer.result)).code == 103
    await both.delete(netns, answer.result)
    assert set(everything(netns).links) == {"lo"}

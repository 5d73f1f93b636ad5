"""Networks of the physical kind: no half on the host where there is none, and no name server that cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cni.calling import Programs, Runtime
from tests.lab.worker.bench import workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.mark.parametrize(("mode", "halves"), [("macvlan", ["eth0"]), ("bridge", ["kve", "eth0"])])
async def test_an_interface_on_the_physical_network_is_told_as_it_is(
    programs: Programs, tmp_path: Path, mode: str, halves: list[str]
) -> None:
    async with workers(tmp_path, hosts=1, lan=True) as lab:
        subnets = [{"cidr": "10.180.0.0/24"}]
        body = {"name": "lan", "driver": "transparent", "uplink": "lan0", "uplink_mode": mode, "subnets": subnets}
        await lab.client.create_network(body)  # type: ignore[arg-type]
        netns = (await lab.add_workload("blue", "h1")).netns
        runtime = Runtime(programs.cni, lab.hosts["h1"].socket, name="lan")
        result = await runtime.add("c1", netns)

        told = [interface["name"] for interface in result["interfaces"]]
        assert [name.startswith(half) for name, half in zip(told, halves, strict=True)] == [True] * len(halves)
        assert result["ips"][0]["interface"] == len(halves) - 1
        assert result["dns"] == {}
        (await runtime.call("CHECK", "c1", netns, prevResult=result)).require_quiet()
        await runtime.delete("c1", netns)

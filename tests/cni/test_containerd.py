"""containerd's own CNI library, as Kubernetes and nerdctl use it: it insists on an eth0, and on going away cleanly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.cni.calling import Programs
from tests.cni.containerd import Containerd
from tests.cni.podman import make_rootfs
from tests.lab.eye import everything

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
async def containerd(
    lab: Lab, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Containerd]:
    ours = {"type": "kvnet-cni", "network": "pods", "socket": str(lab.hosts["h1"].socket)}
    listed = {"cniVersion": "1.0.0", "name": "kvnet", "plugins": [ours]}
    folder = tmp_path_factory.mktemp("ctrd") / "c"
    made = await Containerd.on(lab.hosts["h1"].netns, folder, programs, listed)
    yield made
    await made.close()


async def test_a_container_is_attached_while_it_runs_and_nothing_stays(
    lab: Lab, containerd: Containerd, tmp_path: Path
) -> None:
    far = await lab.add_workload("far", "h2", serve=True)
    await lab.attach("pods", "far")
    address = lab.address_of("far", "pods")
    said = await containerd.run("c1", make_rootfs(tmp_path / "r"), f"sleep 1; ip addr show eth0; nc {address} 8080")
    assert "10.90.0." in said
    assert "hello from far on h2" in said
    assert [e["name"] async for e in lab.client.endpoints()] == ["far"]
    assert not [name for name in everything(lab.hosts["h1"].netns).links if name.startswith("kve")]
    await lab.detach("pods", "far")
    await lab.remove_workload(far.name)

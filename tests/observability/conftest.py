"""One lab for all tests here: a controller and a worker as real processes, scraped once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvnet.http import HttpClient, Target
from lab.lab import Lab, open_lab
from tests.lab import world

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROMTOOL = ROOT / ".tools/prometheus/root/usr/bin/promtool"


@dataclass(frozen=True)
class Scrapes:
    controller: str
    worker: str

    @property
    def both(self) -> str:
        return self.controller + self.worker


def pytest_collection_finish(session: pytest.Session) -> None:
    world.prepare(session, HERE)


@pytest.fixture(scope="session")
def promtool() -> Path:
    assert PROMTOOL.exists(), "there is no promtool: run tests/observability/install"
    return PROMTOOL


@pytest.fixture(scope="session")
def scrapes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scrapes:
    world.require(request.config)
    return asyncio.run(_scraped(tmp_path_factory.mktemp("lab")))


async def _scraped(directory: Path) -> Scrapes:
    async with open_lab(directory, hosts=1) as lab:
        await lab.start_controller()
        await lab.start_worker("h1")
        await lab.until_ready("h1")
        await lab.client.create_network({"name": "my-net", "driver": "overlay"})
        await lab.add_workload("c1", "h1")
        await lab.attach("my-net", "c1")
        worker = await lab.hosts["h1"].local.request({"op": "metrics"})
        return Scrapes(await _controllers(lab), worker["text"])


async def _controllers(lab: Lab) -> str:
    client = HttpClient((Target.parse(f"unix://{lab.directory}/c.sock"),), {})
    try:
        return (await client.request("GET", "/metrics", b"", 10.0)).body.decode()
    finally:
        await client.close()

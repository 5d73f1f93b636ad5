"""A controller whose disk is full: what was acknowledged stays, reading goes on, and writing when there is room."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.under_test import problem_of, running

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk_is_told_and_forgotten_when_there_is_room_again(small_disk: Path) -> None:
    async with running(f"sqlite://{small_disk}/kvnet.db") as api:
        made = [await api.network()]
        filler = small_disk / "filler"
        await asyncio.to_thread(fill, filler)

        async with asyncio.timeout(10):
            while (answer := await api.post("/v1/networks", {"name": api.fresh()})).status_code == 201:
                made.append(answer.json())
        problem = problem_of(answer, 503, "store-broken")
        assert "full" in problem["detail"]
        listed = (await api.get("/v1/networks?limit=500")).json()["items"]
        assert {n["id"] for n in listed} == {n["id"] for n in made}

        filler.unlink()
        made.append(await api.network())
        assert (await api.get("/v1/ipam/check")).json()["ok"]
    async with running(f"sqlite://{small_disk}/kvnet.db") as api:
        listed = (await api.get("/v1/networks?limit=500")).json()["items"]
        assert {n["id"] for n in listed} == {n["id"] for n in made}


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return

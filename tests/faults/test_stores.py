"""A store file that goes bad while a controller has it open, or that is not one to begin with: told, never guessed.

Nothing is acknowledged that the next start would not find.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.server import ServerSettings, serve
from kvnet.errors import KvnetError
from tests.api.under_test import eventually, problem_of, running

pytestmark = pytest.mark.anyio


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def removed(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def replaced_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def without_its_log(path: Path) -> None:
    log_of(path).unlink()


def its_directory_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


BREAKAGES = [removed, moved, replaced_by_a_copy, emptied, without_its_log, its_directory_moved]


@pytest.mark.parametrize("damage", BREAKAGES, ids=lambda f: f.__name__)
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "kvnet.db"
    async with running(f"sqlite://{path}") as api:
        network = await api.network()
        damage(path)

        problem = problem_of(await api.post("/v1/networks", {"name": "late"}), 503, "store-broken")
        assert str(path) in problem["detail"]
        problem_of(await api.delete(f"/v1/networks/{network['id']}"), 503, "store-broken")
        assert [n["id"] for n in (await api.get("/v1/networks")).json()["items"]] == [network["id"]]
        assert (await api.get("/livez")).status_code == 200

        async def is_not_ready() -> bool:
            return (await api.get("/readyz")).status_code == 503

        await eventually(is_not_ready)


async def test_a_store_locked_by_somebody_else_is_unavailable_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "kvnet.db"
    async with running(f"sqlite://{path}") as api:
        await api.network()
        holder = sqlite3.connect(path, isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            problem = problem_of(await api.post("/v1/networks", {"name": "late"}), 503, "store-unavailable")
            assert "locked by another process" in problem["detail"]
            holder.execute("ROLLBACK")
        finally:
            holder.close()
        assert (await api.post("/v1/networks", {"name": "late"})).status_code == 201


SENTINELS = {
    "of a newer format": (b'{"v":99,"id":"x","created_at":1.0,"schema":1}', "upgrade this kvnet"),
    "of a newer schema": (b'{"v":1,"id":"x","created_at":1.0,"schema":7}', "upgrade this kvnet"),
    "that is garbage": (b"\xff\x00garbage", "kvnet check"),
    "that is another kind of thing": (b"[]", "kvnet check"),
    "that has no fields": (b"{}", "kvnet check"),
    "without an id": (b'{"v":1,"created_at":1.0}', "kvnet check"),
}


@pytest.mark.parametrize("case", SENTINELS)
async def test_a_store_with_a_sentinel(tmp_path: Path, case: str) -> None:
    value, fix = SENTINELS[case]
    path = tmp_path / "kvnet.db"
    async with running(f"sqlite://{path}") as api:
        await api.network()
    database = sqlite3.connect(path)
    database.execute("update entries set value = ? where key = 'meta/cluster'", (value,))
    database.commit()
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()
    before = path.read_bytes()

    with pytest.raises(KvnetError) as refusal:
        await serve(ServerSettings(store=f"sqlite://{path}", listen="127.0.0.1:0"), ready=lambda _: None)

    assert refusal.value.code == ("store-too-new" if "newer" in case else "store-broken")
    assert fix in refusal.value.fix
    assert path.read_bytes() == before


UNREADABLE = [
    b"\xff",
    b"{}",
    b"null",
    b'{"v":99}',
    b'{"v":"1"}',
    b"[" * 100_000,
    b'{"v":1,"name":"$(id)","id":"..","mtu":-1,"underlay":"192.0.2.1","kind":"nothing","holder":1,"since":"now"}',
]


@pytest.mark.parametrize("key", ["networks/{id}", "endpoints/{id}/e", "hosts/h1", "addresses/{id}/10.70.0.2"])
@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: value[:20].decode(errors="replace"))
async def test_one_value_that_cannot_be_read_is_found_and_blinds_nobody(tmp_path: Path, key: str, value: bytes) -> None:
    path = tmp_path / "kvnet.db"
    async with running(f"sqlite://{path}") as api:
        network = await api.network(subnets=[{"cidr": "10.70.0.0/24"}])
        other = await api.network()
        await api.endpoint(network["id"], id="e")
    database = sqlite3.connect(path)
    changed = database.execute("update entries set value = ? where key = ?", (value, key.format(id=network["id"])))
    assert changed.rowcount == 1
    database.commit()
    database.close()

    async with running(f"sqlite://{path}") as api:
        assert (await api.get(f"/v1/networks/{other['id']}")).status_code == 200
        assert (await api.get("/v1/networks")).status_code == 200
        assert (await api.get("/v1/endpoints")).status_code == 200
        assert (await api.get("/v1/hosts")).status_code == 200
        await api.endpoint(other["id"], host="h2")
        report = (await api.get("/v1/ipam/check")).json()
        assert not report["ok"] or key.startswith("hosts/")

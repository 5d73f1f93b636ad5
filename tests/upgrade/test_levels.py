"""What a version writes for readers that are older; and a new field of what is stored says since when it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from backends.levelled import LevelledStore
from backends.memory import MemoryStore
from backends.store import Put, Refused
from controller.snapshot import pack, unpack
from kvnet import codec, keys, sentinel
from kvnet.errors import BackupUnusable, StoreBroken, StoreTooNew
from kvnet.marks import Cluster, Level, Replica
from kvnet.model import Host
from tests.upgrade.fields import fields

pytestmark = pytest.mark.anyio

FIELDS = Path(__file__).with_name("fields.json")


@dataclass(frozen=True)
class Part:
    a: int
    new: int = field(default=7, metadata={"schema": 3})


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    one: Part | None = None
    later: str = field(default="x", metadata={"schema": 2})


WHOLE = Whole("w", (Part(1), Part(2)), {"k": Part(3)}, Part(4))


def test_every_stored_field_says_with_which_schema_it_came() -> None:
    known = json.loads(FIELDS.read_text())
    assert fields() == known, (
        "a new field of something stored needs metadata={'schema': n} and that SCHEMA in kvnet/codec.py; "
        "as long as n is not released: python -m tests.upgrade.fields > tests/upgrade/fields.json"
    )
    assert max(since for model in known.values() for since in model.values()) <= codec.SCHEMA


def test_the_number_in_front_is_that_of_the_newest_field_in_it() -> None:
    assert codec.schema_of(codec.encode(WHOLE)) == 3
    assert codec.schema_of(codec.encode(Host("h", ip_address("192.0.2.1"), 1500))) == 1


@pytest.mark.parametrize(("level", "schema", "has_later", "has_new"), [(1, 1, 0, 0), (2, 2, 1, 0), (3, 3, 1, 4)])
def test_later_fields_are_left_out_at_every_depth(level: int, schema: int, has_later: int, has_new: int) -> None:
    written = codec.stamped(codec.encode(WHOLE), "request-1", "")
    told = codec.lowered(Whole, written, level)
    assert codec.schema_of(told) == schema
    assert told.count(b'"later"') == has_later
    assert told.count(b'"new"') == has_new
    assert codec.stamp_of(told) == codec.stamp_of(written)
    assert codec.unstamped(told) == codec.lowered(Whole, codec.encode(WHOLE), level)


def test_an_older_reader_takes_what_was_lowered_and_refuses_what_was_not() -> None:
    newer = b'{"v":%d,"name":"h","underlay":"192.0.2.1","mtu":1500,"more":1}' % (codec.SCHEMA + 1)
    with pytest.raises(StoreBroken, match="knows up to"):
        codec.decode(Host, newer)
    assert codec.decode(Host, newer.replace(b'{"v":%d' % (codec.SCHEMA + 1), b'{"v":1')).name == "h"


def test_the_level_is_the_sentinels_until_it_is_raised() -> None:
    class Held:
        def __init__(self, value: bytes) -> None:
            self.value = value

    founded = Held(codec.encode(Cluster("c", 1.0, 1)))
    raised = Held(codec.encode(Level(5, 1.0, "me")))
    assert sentinel.level_of({}) == 1
    assert sentinel.level_of({keys.CLUSTER: founded}) == 1
    assert sentinel.level_of({keys.CLUSTER: founded, keys.LEVEL: raised}) == 5
    assert sentinel.level_of({keys.CLUSTER: founded, keys.LEVEL: Held(b"garbage")}) == 1
    with pytest.raises(StoreTooNew, match="knows up to"):
        sentinel.require_level(raised.value)
    sentinel.require_level(None)


async def test_who_is_older_than_the_level_writes_nothing() -> None:
    inner = MemoryStore()
    level = 1
    store = LevelledStore(inner, lambda: level)
    await store.commit([], [Put("hosts/a", b'{"v":1}')])
    level = codec.SCHEMA + 1
    with pytest.raises(Refused, match="upgrade it"):
        await store.commit([], [Put("hosts/b", b'{"v":1}')])
    assert [entry.key for entry in (await inner.list("")).entries] == ["hosts/a"]
    await inner.close()


async def test_a_backup_is_of_the_clusters_level_and_of_no_process() -> None:
    store = MemoryStore()
    alive = Replica("0123456789ab", "c", 1.0, 1, "1")
    await store.commit([], [Put(keys.CLUSTER, codec.encode(Cluster("c", 1.0, 1)))])
    await store.commit([], [Put(keys.replica(alive.id), codec.encode(alive))])
    whole = [json.loads(line) for line in pack(await store.list(""), "memory", 1.0)]
    assert whole[0]["schema"] == 1
    assert [line["k"] for line in whole[1:-1]] == [keys.CLUSTER]
    raised = codec.encode(Level(codec.SCHEMA + 1, 1.0, "me"))
    await store.commit([], [Put(keys.LEVEL, raised)])
    lines = list(pack(await store.list(""), "memory", 1.0))
    assert json.loads(lines[0])["schema"] == codec.SCHEMA + 1
    with pytest.raises(BackupUnusable, match="newer kvnet"):
        unpack(lines)
    await store.close()

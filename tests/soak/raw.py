"""The keys that are in the store, read past all of kvnet: by the store's own protocol, or out of SQLite's file.

Asked of one member after the other until one answers. Only keys: what values mean is for those who know the codec.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote

from kvnet.errors import Unfit
from tests.servers.places import NoAnswer, Place, http
from tests.soak.site import Soaked

ROOT = "kvnet"
ASK_S = 60.0  # tens of thousands of nodes, whose values are read one by one, on a machine that has more to do
# Directories with commas for slashes, and names in them, both with percent escapes. A deleted key is a mark, which only
# its value tells.
ZOOKEEPER = r"""
import json, sys
from kazoo.client import KazooClient
client = KazooClient(sys.argv[1], timeout=5)
client.start(timeout=10)
data = sys.argv[2]
client.sync(data)
nodes = [(place, name) for place in client.get_children(data) for name in client.get_children(data + "/" + place)]
if sys.argv[3] == "live":
    asked = [(node, client.get_async(data + "/" + "/".join(node))) for node in nodes]
    nodes = [node for node, answer in asked if not answer.get(timeout=30)[0].startswith(b"\0kvnet:t")]
print(json.dumps(nodes))
client.stop()
"""


async def keys_of(site: Soaked) -> frozenset[str]:
    """
    Raises:
        Unfit: no member answers now.
    """
    if site.store is None:
        assert site.store_disk is not None
        return await asyncio.to_thread(_sqlite, site.store_disk / "kvnet.db")
    ask: Callable[[Place, int], Awaitable[frozenset[str]]]
    ask = {"etcd": _etcd, "consul": _consul, "zookeeper": _zookeeper}[site.options.store]
    reasons = []
    for member in site.store.members:
        try:
            return await ask(member.place, int(member.endpoint.rpartition(":")[2]))
        except NoAnswer as error:
            reasons.append(str(error))
    raise Unfit(f"no member of the store tells its keys: {'; '.join(reasons)}")


async def differing(site: Soaked) -> frozenset[str]:
    """Keys that some of the store's servers have now and others have not: with a change under way, it may be any.

    Marks of deleted ones count: commits make and sweep them, too. Only ZooKeeper's servers are asked: the others answer
    for their whole cluster, whomever one asks.

    Raises:
        NoAnswer: one of them does not tell.
    """
    if site.store is None or site.options.store != "zookeeper":
        return frozenset()
    told = await asyncio.gather(
        *(_nodes(member.place, int(member.endpoint.rpartition(":")[2]), "all") for member in site.store.members)
    )
    return frozenset.union(*told) - frozenset.intersection(*told)


def _sqlite(file: Path) -> frozenset[str]:
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return frozenset(key for (key,) in database.execute("SELECT key FROM entries WHERE value IS NOT NULL"))
    except sqlite3.Error as error:
        raise Unfit(f"{file}: {error}") from error
    finally:
        database.close()


async def _etcd(place: Place, port: int) -> frozenset[str]:
    first, end = f"/{ROOT}/".encode(), f"/{ROOT}0".encode()
    asked = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(end).decode(), "keys_only": True}
    status, told = await http(place, port, "POST", "/v3/kv/range", body=asked)
    if status != 200:
        raise NoAnswer(f"{place.at(port)}: {status}")
    return frozenset(base64.b64decode(entry["key"])[len(first) :].decode() for entry in told.get("kvs", []))


async def _consul(place: Place, port: int) -> frozenset[str]:
    status, told = await http(place, port, "GET", f"/v1/kv/{ROOT}/?keys=true&consistent=true")
    if status != 200:
        raise NoAnswer(f"{place.at(port)}: {status}")
    return frozenset(str(key).removeprefix(f"{ROOT}/") for key in told)


async def _zookeeper(place: Place, port: int) -> frozenset[str]:
    return await _nodes(place, port, "live")


async def _nodes(place: Place, port: int, which: str) -> frozenset[str]:
    """By a process in the member's namespace: the client library opens its sockets where it runs."""
    tool = shutil.which("nsenter")
    if tool is None:
        raise Unfit("there is no 'nsenter' on this machine", fix="install util-linux")
    command = [tool, f"--net={place.netns}", sys.executable, "-c", ZOOKEEPER, place.at(port), f"/{ROOT}/data", which]
    asked = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(ASK_S):
            said, complaints = await asked.communicate()
    except TimeoutError:
        asked.kill()
        await asked.wait()
        raise NoAnswer(f"{place.at(port)} does not tell its nodes within {ASK_S:g} s") from None
    if asked.returncode:
        raise NoAnswer(f"{place.at(port)}: {complaints.decode(errors='replace')[-300:]}")
    return frozenset("/".join([*_directory(directory), unquote(name)]) for directory, name in json.loads(said))


def _directory(node: str) -> list[str]:
    return [] if node == "," else [unquote(node.replace(",", "/"))]

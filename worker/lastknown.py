"""The last state that this host knew of the cluster, on disk: what it lives on when it boots and the store is away.

Saved now and then, as the store wrote it; restored whole or not at all. It may be older than the kernel, so nothing is
ever removed by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datapath.view import Attachment, HostView
from kvnet import codec
from kvnet.errors import StoreBroken
from kvnet.model import Block, Endpoint, Host, Network
from worker.disk import StateDir

FILE = "lastknown.json"
FORMAT = 1  # of the file; what is in it is as the store had it


@dataclass(frozen=True, slots=True)
class Written:
    """The stored values, not decoded: a large host saves often, and restores hardly ever."""

    hosts: tuple[bytes, ...]
    networks: tuple[bytes, ...]
    endpoints: tuple[bytes, ...]
    blocks: tuple[bytes, ...] = ()


def save(state: StateDir, cluster: str, written: Written) -> None:
    """Blocking: belongs into a thread."""
    head = f'{{"v":{FORMAT},"cluster":{json.dumps(cluster)},"hosts":['.encode()
    parts = [head, _joined(written.hosts), b'],"networks":[', _joined(written.networks)]
    parts += [b'],"endpoints":[', _joined(written.endpoints), b'],"blocks":[', _joined(written.blocks), b"]}"]
    state.write(FILE, b"".join(parts), durable=True)


def restore(state: StateDir, own: Host, cluster: str) -> HostView | None:
    """None if there is none, if it cannot be read, or if it is of another cluster than the remembered one."""
    data = state.read(FILE)
    if data is None:
        return None
    try:
        plain = json.loads(data)
        if plain["v"] != FORMAT or not cluster or plain["cluster"] != cluster:
            return None
        return _view(plain, own)
    except (ValueError, KeyError, TypeError, StoreBroken):
        return None


def with_attachments(view: HostView, attachments: Mapping[str, Attachment]) -> HostView:
    return replace(view, attachments=attachments)


def _joined(values: Iterable[bytes]) -> bytes:
    return b",".join(values)


def _view(plain: Mapping[str, Any], own: Host) -> HostView:
    hosts = {h.name: h for h in (codec.from_json(Host, item) for item in plain["hosts"])}
    networks = {n.id: n for n in (codec.from_json(Network, item) for item in plain["networks"])}
    endpoints: dict[str, dict[str, Endpoint]] = {network_id: {} for network_id in networks}
    for item in plain["endpoints"]:
        endpoint = codec.from_json(Endpoint, item)
        endpoints.setdefault(endpoint.network, {})[endpoint.id] = endpoint
    blocks: dict[str, list[Block]] = {}
    for item in plain.get("blocks", ()):
        block = codec.from_json(Block, item)
        blocks.setdefault(block.network, []).append(block)
    return HostView(own.name, {**hosts, own.name: own}, networks, endpoints, {}, blocks)

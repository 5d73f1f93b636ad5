"""The last state that this host knew of the cluster, on disk: what it lives on when it boots and the store is away.

Saved now and then, restored whole or not at all. It may be older than the kernel, so nothing is ever removed by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from datapath.view import Attachment, HostView
from kvnet import codec
from kvnet.errors import StoreBroken
from kvnet.model import Endpoint, Host, Network
from worker.disk import StateDir

FILE = "lastknown.json"


class LastKnown:
    """`cluster` is the id of the cluster that it shows."""

    def __init__(self, cluster: str, view: HostView) -> None:
        self.cluster = cluster
        self.view = view

    def encoded(self) -> bytes:
        view = self.view
        plain = {
            "v": codec.SCHEMA,
            "cluster": self.cluster,
            "hosts": [codec.to_json(host) for host in view.hosts.values()],
            "networks": [codec.to_json(network) for network in view.networks.values()],
            "endpoints": [codec.to_json(e) for of_network in view.endpoints.values() for e in of_network.values()],
        }
        return json.dumps(plain, separators=(",", ":")).encode()

    def save(self, state: StateDir) -> None:
        """Blocking, and for a large host slow: belongs into a thread."""
        state.write(FILE, self.encoded(), durable=True)


def restore(state: StateDir, host: str, own: Host, cluster: str) -> LastKnown | None:
    """None if there is none, if it cannot be read, or if it is of another cluster than the remembered one."""
    data = state.read(FILE)
    if data is None:
        return None
    try:
        plain = json.loads(data)
        if plain["v"] != codec.SCHEMA or not cluster or plain["cluster"] != cluster:
            return None
        return LastKnown(cluster, _view(plain, host, own))
    except (ValueError, KeyError, TypeError, StoreBroken):
        return None


def _view(plain: Mapping[str, Any], host: str, own: Host) -> HostView:
    hosts = {h.name: h for h in (codec.from_json(Host, item) for item in plain["hosts"])}
    networks = {n.id: n for n in (codec.from_json(Network, item) for item in plain["networks"])}
    endpoints: dict[str, dict[str, Endpoint]] = {network_id: {} for network_id in networks}
    for item in plain["endpoints"]:
        endpoint = codec.from_json(Endpoint, item)
        endpoints.setdefault(endpoint.network, {})[endpoint.id] = endpoint
    return HostView(host, {**hosts, host: own}, networks, endpoints, {})


def with_attachments(view: HostView, attachments: Mapping[str, Attachment]) -> HostView:
    return HostView(view.host, view.hosts, view.networks, view.endpoints, attachments)

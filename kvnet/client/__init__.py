"""The HTTP API as async methods: what the CLI, the lab and your scripts speak to a controller with.

One module per kind of thing; how requests are made, and what is repeated, is in `kvnet.client.connection`.
"""

from __future__ import annotations

from kvnet.client.access import Access
from kvnet.client.audit import Audit
from kvnet.client.cluster import Cluster
from kvnet.client.connection import DEFAULT_CONTROLLER, Transport
from kvnet.client.endpoints import MAX_BULK, Endpoints, new_endpoint_id
from kvnet.client.events import Events
from kvnet.client.hosts import Hosts
from kvnet.client.networks import Networks
from kvnet.client.pools import Pools

__all__ = ["DEFAULT_CONTROLLER", "MAX_BULK", "Client", "Transport", "new_endpoint_id"]


class Client(Networks, Endpoints, Hosts, Pools, Cluster, Events, Access, Audit):
    """A connection to a controller. Use it as `async with Client(url) as client`."""

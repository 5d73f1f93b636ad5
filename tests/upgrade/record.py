"""`python -m tests.upgrade.record IMAGE`: a full store of a real controller and real workers, as lines of JSON.

Run once for each schema that is released, and never again: an image is what sites have. It has every kind of key.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from kvnet import keys
from tests.input.site import Site, a_site, until

KINDS = (
    *(keys.META, keys.GUARDS, keys.POOLS, keys.SUBNETS, keys.NAMES, keys.VNIS, keys.NETWORKS, keys.ADDRESSES),
    *(keys.ENDPOINTS, keys.LOCAL, keys.JOURNAL, keys.BLOCKS, keys.PORTS, keys.BRIDGES, keys.HOSTS, keys.INVENTORY),
    *(keys.ALIVE, keys.OBSERVED, keys.LEADERS, keys.REPLICAS),
)


GUARDED = (keys.TOKENS, keys.SEALS, keys.AUTHENTICATION)


async def is_all_there(site: Site, kinds: Iterable[str]) -> bool:
    found = await site.values()
    return all(any(key.startswith(kind) for key in found) for kind in kinds)


async def furnished(site: Site) -> None:
    """One of everything that a cluster keeps."""
    api = site.api
    await api.network(name="web", subnets=[{"cidr": "10.60.1.0/24", "reserved": {"printer": "10.60.1.9"}}])
    await api.network(name="both", ipv6=True, labels={"team": "a"}, options={"x": "y"}, mtu=1400)
    await api.network(name="far", driver="routed", subnets=[{"cidr": "10.61.0.0/16"}])
    await api.network(name="plain", driver="bridge", bridge_name="br-plain", internal=True)
    assert (await api.post("/v1/networks/web/peers/far")).status_code < 300
    ports = [{"port": 80, "protocol": "tcp", "host_port": 8080}, {"port": 53, "protocol": "udp", "host_port": 5353}]
    await api.endpoint("web", id="e-web", host="h1", name="e-web", address="10.60.1.7", ports=ports, aliases=["w"])
    await api.endpoint("both", host="h1", name="six", labels={"a": "b"})
    gone = await api.endpoint("web", host="h1")
    assert (await api.delete(f"/v1/networks/web/endpoints/{gone['id']}")).status_code == 204
    assert (await api.post("/v1/networks/web/reservations", {"name": "r1", "address": "10.60.1.20"})).status_code < 300
    assert (await api.post("/v1/pools", {"name": "p2", "cidr": "10.80.0.0/16", "prefix_length": 24})).status_code < 300
    assert (await api.post("/v1/holds", {"host": "h1", "version": 4})).status_code < 300
    for network in ("web", "far", "both"):
        for member in site.members.values():
            await member.attach(network, f"{network}-{member.host.name}")


async def guarded(site: Site) -> None:
    """Somebody may come in; the workers of this site may not, from here on."""
    made = await site.api.post("/v1/tokens", {"name": "root", "role": "admin"})
    assert made.status_code == 201, made.text
    bearer = {"authorization": f"Bearer {made.json()['token']}"}
    more = [
        {"name": "team-a", "role": "operator", "scope": {"team": "a"}, "limits": {"networks": 3}},
        {"name": "a", "role": "host", "host": "a", "grants": ["docker"], "expires_in_s": 3600},
    ]
    for token in more:
        assert (await site.api.post("/v1/tokens", token, **bearer)).status_code == 201


async def recorded(folder: Path) -> dict[str, bytes]:
    async with a_site(f"sqlite://{folder}/kvnet.db", folder, "a", "b", cool_down_s=600.0) as site:
        await furnished(site)
        await until(lambda: is_all_there(site, KINDS), what="every kind of key is there")
        await guarded(site)
        await until(lambda: is_all_there(site, GUARDED), what="what guards them, too")
        return await site.values()


def lines(values: Mapping[str, bytes]) -> Iterable[str]:
    for key in sorted(values):
        value = values[key]
        try:
            yield json.dumps({"key": key, "value": value.decode()}, ensure_ascii=False)
        except UnicodeDecodeError:
            yield json.dumps({"key": key, "base64": base64.b64encode(value).decode()})


def read(image: Path) -> dict[str, bytes]:
    found = {}
    for line in image.read_text().splitlines():
        one = json.loads(line)
        found[one["key"]] = base64.b64decode(one["base64"]) if "base64" in one else one["value"].encode()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    with tempfile.TemporaryDirectory() as folder:
        values = asyncio.run(recorded(Path(folder)))
    parser.parse_args().image.write_text("\n".join(lines(values)) + "\n")


if __name__ == "__main__":
    main()

"""What a hostile host tries at the API: to place, to move, to see and to end what is others'."""

from __future__ import annotations

from kvnet.model import gateway_mac
from tests.security.hostile import JEWELS, SUBNET, VAULT, Attempt, Scene


def calls(s: Scene) -> list[Attempt]:
    return [*_creations(s), *_changes(s), *_questions(s), *_affairs_of_networks(s), *_affairs_of_the_cluster(s)]


def _creations(s: Scene) -> list[Attempt]:
    """Endpoints where it has no business, or with what another one has."""
    shared = f"/v1/networks/{s.shared['id']}"
    new = {"host": "h1", "name": "evil"}
    return [
        ("POST", f"{shared}/endpoints", {**new, "host": "h2"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "h10"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "H1"}),
        ("POST", f"{shared}/endpoints", {**new, "host": "h1 "}),
        ("POST", f"{shared}/endpoints", {"items": [new, {**new, "host": "h2"}]}),
        ("POST", f"{shared}/endpoints", {**new, "id": s.theirs["id"]}),
        ("POST", f"{shared}/endpoints", {**new, "mac": s.theirs["mac"]}),
        ("POST", f"{shared}/endpoints", {**new, "mac": s.theirs["mac"].upper()}),
        ("POST", f"{shared}/endpoints", {**new, "mac": gateway_mac(s.shared["id"])}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.theirs["address"]}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.theirs["address"], "reuse": True}),
        ("POST", f"{shared}/endpoints", {**new, "address": s.shared["subnets"][0]["gateway"]}),
        ("POST", f"{shared}/endpoints", {**new, "address": "203.0.113.2"}),
        ("POST", f"{shared}/endpoints?dry_run=plan", new),
        ("POST", f"{shared}/endpoints?dry_run=plan", {"items": [new]}),
        ("POST", "/v1/networks/jewels-marke/endpoints", new),  # "did you mean"
        ("POST", "/v1/networks/nobodys/endpoints", {**new, "host": "h2"}),
    ]


def _changes(s: Scene) -> list[Attempt]:
    """Of endpoints that are there."""
    shared, jewels = f"/v1/networks/{s.shared['id']}", f"/v1/networks/{s.jewels['id']}"
    theirs, vault = f"{shared}/endpoints/{s.theirs['id']}", f"{jewels}/endpoints/{s.vault['id']}"
    mine = f"{shared}/endpoints/{s.mine['id']}"
    return [
        ("PATCH", theirs, {"name": "stolen"}),
        ("PATCH", theirs, {"host": "h1"}),
        ("PATCH", theirs, {"ports": [{"port": 80, "host_port": 80}]}),
        ("PATCH", theirs, {"labels": {"x": "y"}}),
        ("PATCH", f"{shared}/endpoints/db", {"name": "stolen"}),
        ("PATCH", vault, {"name": "stolen"}),
        ("PATCH", f"{jewels}/endpoints/{VAULT}", {"name": "stolen"}),
        ("PATCH", "/v1/networks/jewels-marke/endpoints/x", {"name": "stolen"}),
        ("DELETE", "/v1/networks/jewels-marke/endpoints/x", None),
        ("DELETE", f"{jewels}/endpoints/nobody-made-this", None),
        ("PATCH", mine, {"host": "h2"}),
        ("PATCH", mine, {"address": s.theirs["address"]}),
        ("PATCH", mine, {"address": s.theirs["address"], "reuse": True}),
        ("PATCH", mine, {"mac": s.theirs["mac"]}),
        ("PATCH", mine, {"id": s.theirs["id"]}),
        ("PATCH", f"{mine}?dry_run=plan", {"name": "x"}),
        ("DELETE", theirs, None),
        ("DELETE", f"{shared}/endpoints/db", None),
        ("DELETE", vault, None),
        ("DELETE", f"{jewels}/endpoints/{VAULT}", None),
        ("DELETE", f"{theirs}?dry_run=plan", None),
        ("DELETE", f"{shared}/endpoints/{s.mine['id']}%2F..%2F{s.theirs['id']}", None),
        ("DELETE", f"{mine}/../{s.theirs['id']}", None),
    ]


def _questions(s: Scene) -> list[Attempt]:
    """About what it takes no part in."""
    jewels = f"/v1/networks/{s.jewels['id']}"
    vault = f"{jewels}/endpoints/{s.vault['id']}"
    return [
        ("GET", jewels, None),
        ("GET", f"/v1/networks/{JEWELS}", None),
        ("GET", f"{jewels}/endpoints", None),
        ("GET", vault, None),
        ("GET", f"{jewels}/convergence", None),
        ("GET", f"{jewels}/reservations", None),
        ("GET", "/v1/endpoints", None),
        ("GET", f"/v1/endpoints?address={s.vault['address']}", None),
        ("GET", f"/v1/endpoints?network={s.jewels['id']}", None),
        ("GET", "/v1/hosts", None),
        ("GET", "/v1/hosts/h2", None),
        ("GET", "/v1/hosts/h10", None),
        ("GET", "/v1/hosts/h1/ports", None),
        ("GET", "/v1/hosts/h2/ports", None),
        ("GET", "/v1/hosts/h2/doctor", None),
        ("GET", "/v1/events", None),
        ("GET", "/v1/ipam", None),
        ("GET", f"/v1/ipam/addresses/{s.vault['address']}", None),
        ("GET", f"/v1/ipam/subnets/{SUBNET}", None),
        ("GET", "/v1/ipam/check", None),
        ("GET", "/v1/pools", None),
        ("GET", "/v1/holds", None),
        ("GET", "/v1/tokens", None),
        ("GET", f"/v1/tokens/{s.site.made['h2']}", None),
        ("GET", "/v1/store-state", None),
        ("GET", "/v1/audit/export", None),
        ("GET", "/v1/audit/seals", None),
        ("GET", "/v1/audit/verify", None),
        ("GET", "/metrics", None),
    ]


def _affairs_of_networks(s: Scene) -> list[Attempt]:
    """What operators do."""
    shared, jewels = f"/v1/networks/{s.shared['id']}", f"/v1/networks/{s.jewels['id']}"
    return [
        ("POST", "/v1/ipam/check", None),
        ("POST", "/v1/store-state/accept", {"cluster": "x", "revision_before": 0}),
        ("POST", "/v1/networks", {"name": "evil"}),
        ("POST", "/v1/networks", {"name": "evil", "subnets": [{"cidr": SUBNET}], "force": True}),
        ("PATCH", shared, {"labels": {"x": "y"}}),
        ("PATCH", jewels, {"labels": {"x": "y"}}),
        ("POST", f"{shared}/name", {"name": "evil"}),
        ("POST", f"{shared}/peers/{s.jewels['id']}", None),
        ("DELETE", f"{shared}/peers/{s.jewels['id']}", None),
        ("DELETE", shared, None),
        ("DELETE", jewels, None),
        ("POST", "/v1/networks/prune", None),
        ("POST", "/v1/networks/prune?dry_run=true", None),
        ("POST", "/v1/holds", {"host": "h1"}),
        ("POST", "/v1/holds", {"host": "h2", "cidr": "10.77.0.0/24", "force": True}),
        ("DELETE", "/v1/holds/aaaaaaaaaaaa", None),
        ("POST", f"{shared}/reservations", {"name": "evil"}),
        ("DELETE", f"{shared}/reservations/x", None),
        ("POST", "/v1/pools", {"name": "evil", "cidr": "10.99.0.0/16", "prefix_length": 24}),
        ("DELETE", "/v1/pools/default", None),
    ]


def _affairs_of_the_cluster(s: Scene) -> list[Attempt]:
    """What admins do."""
    return [
        ("DELETE", "/v1/hosts/h2?force=true", None),
        ("DELETE", "/v1/hosts/h1?force=true", None),
        ("POST", "/v1/hosts/h2/pause", {"seconds": 60}),
        ("POST", "/v1/hosts/h1/pause", {"seconds": 60}),
        ("POST", "/v1/trace", {"from": "web", "to": VAULT}),
        ("POST", "/v1/connectivity", {"networks": [JEWELS]}),
        ("POST", "/v1/tokens", {"name": "evil", "role": "admin"}),
        ("POST", "/v1/tokens", {"name": "evil", "role": "host", "host": "h2"}),
        ("POST", f"/v1/tokens/{s.site.made['h2']}/rotate", {}),
        ("POST", f"/v1/tokens/{s.site.made['h1']}/rotate", {}),
        ("DELETE", f"/v1/tokens/{s.site.made['h2']}", None),
        ("DELETE", f"/v1/tokens/{s.site.made['h1']}", None),
        ("PUT", "/v1/authentication", {"required": False}),
    ]

"""What a hostile host tries at the store's gateway: to read, to write, to keep and to end what is others'."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote

from kvnet import codec
from kvnet.model import (
    Alive,
    Block,
    Condition,
    Endpoint,
    Host,
    HostState,
    Inventory,
    NetworkObserved,
    Observed,
)
from kvnet.questions import Answer
from tests.security.hostile import JEWELS, Attempt, Scene, delete, put

Json = dict[str, Any]


def reads(s: Scene) -> list[Attempt]:
    """Keys and prefixes of others, spelled in every way that might be read as one's own."""
    return [
        *(("POST", "/v1/store/get", {"key": key}) for key in _keys(s)),
        *(("POST", "/v1/store/list", {"prefix": prefix}) for prefix in _prefixes(s)),
    ]


def _keys(s: Scene) -> list[str]:
    network, theirs = s.jewels["id"], s.vault["id"]
    return [
        *(f"networks/{network}", f"endpoints/{network}/{theirs}", f"blocks/{network}/10.66.0.0_27"),
        *(f"addresses/{network}/{s.vault['address']}", f"addresses/{s.shared['id']}/{s.theirs['address']}"),
        *("inventory/h2", "alive/h2", "observed/h2", "reclaims/h2", "local/h2/" + theirs, "local/h10/x"),
        *("questions/h2/q", "questions/h10/q", "answers/q", "ports/h1/tcp_0", "ports/h2/tcp_64"),
        *("guards/subnets", "leader/upkeep", "journal/floor", "pools/default", f"vnis/{s.jewels['vni']}"),
        *("secrets/gateway", "secrets/cookies", "tokens/000000000000", "seals/000000000001", "bridges/br0"),
        *(".kvnet/sessions/x", "subnets/10.66.0.0_24", "local/h1/../h2/" + theirs, "hosts/../secrets/gateway"),
        *("hosts//h2", "/hosts/h1", "hosts/h1/", "meta/../tokens/x", "local/h1", "alive/h1\u0000", "alive/h1 "),
        *(f"endpoints/{s.shared['id']}/../{network}/{theirs}", f"networks/{network}/", f"networks//{network}"),
        *(f"networks/{network.upper()}", f"networks%2F{network}", "ALIVE/h2", "alive/ｈ2", "", "/", "..", "."),
    ]


def _prefixes(s: Scene) -> list[str]:
    network = s.jewels["id"]
    return [
        *(
            "",
            "/",
            "h",
            "ho",
            "host",
            "hosts",
            "l",
            "local",
            "local/",
            "local/h",
            "local/h1",
            "local/h10/",
            "local/h2/",
        ),
        *("local/h1//", "local/h1/../", "questions/", "questions/h1", "questions/h2/", "answers/", "alive/", "alive"),
        *("inventory/", "observed/", "reclaims/", "endpoints/", "endpoints", "endpoints/" + network[:6], "networks/"),
        *(
            "networks",
            f"networks/{network[:11]}",
            f"networks/{network}",
            f"endpoints/{network}/",
            f"endpoints/{network}",
        ),
        *(f"blocks/{network}/", "blocks/", "addresses/", f"addresses/{network}/", f"addresses/{s.shared['id']}/"),
        *(
            "tokens/",
            "tokens",
            "secrets/",
            "s",
            "seals/",
            "journal/",
            "guards/",
            "leader/",
            "names/",
            "vnis/",
            "pools/",
        ),
        *("subnets/", "ports/", "bridges/", ".kvnet/", "met", "meta", "hosts/h2", "LOCAL/h1/", "local/h1/\u0000", "*"),
    ]


def writes(s: Scene) -> list[Attempt]:
    single = [*_placements(s), *_affairs_of_the_cluster(s), *_records(s), *_reports(s), *_spellings(), *_removals(s)]
    attempts = [{"checks": [], "writes": [write]} for write in single]
    return [("POST", "/v1/store/commit", attempt) for attempt in [*attempts, *_carried_along(s), *_probing(s)]]


def _record() -> Host:
    return Host("h1", ip_address("203.0.113.1"), 1500, segment=ip_network("203.0.113.0/24"))


def _stolen(s: Scene) -> Endpoint:
    address = ip_address(s.theirs["address"])
    return Endpoint(s.theirs["id"], s.shared["id"], "h1", "db", (address,), s.theirs["mac"], 1.0)


def _placements(s: Scene) -> list[Json]:
    """Endpoints, addresses and networks, as only controllers make them."""
    network, stolen = s.shared["id"], _stolen(s)
    fresh = replace(stolen, id="evil", name="evil")
    return [
        put(f"endpoints/{network}/{s.theirs['id']}", stolen),
        put(f"endpoints/{network}/evil", fresh),
        put(f"endpoints/{network}/{s.mine['id']}", replace(fresh, id=s.mine["id"])),
        put(f"addresses/{network}/{s.theirs['address']}", b"{}"),
        put("local/h1/evil", network.encode()),
        put("local/h1/evil", s.jewels["id"].encode()),
        put("local/h2/" + s.theirs["id"], network.encode()),
        put(f"networks/{network}", b"{}"),
        put("networks/aaaaaaaaaaaa", b"{}"),
        put("names/shared", b"aaaaaaaaaaaa"),
        put(f"blocks/{network}/10.0.0.0_27", Block(network, ip_network("10.0.0.0/27"), "h1", 1.0)),
        put("ports/h2/tcp_64", b"{}"),
        put("subnets/10.99.0.0_24", b"aaaaaaaaaaaa"),
    ]


def _affairs_of_the_cluster(s: Scene) -> list[Json]:
    answer = Answer("q", "h1", 1.0, {"forged": True})
    return [
        put("pools/evil", b"{}"),
        put("guards/subnets", b"9"),
        put("leader/upkeep", b"h1"),
        put("leader/upkeep", b"h1", s.own_session),
        put("meta/cluster", b"{}"),
        put("meta/accepted", b"{}"),
        put("meta/restoring", b"{}"),
        put("meta/authentication", b"{}"),
        put("tokens/aaaaaaaaaaaa", b"{}"),
        put("secrets/gateway", b"x" * 64),
        put("secrets/cookies", b"x" * 64),
        put("seals/000000000001", b"{}"),
        put("journal/0000000000000001-x", b"{}"),
        put("questions/h2/q", b"{}"),
        put("questions/h1/q", b"{}"),
        put("answers/q", answer),
        put("reclaims/h2", b"{}"),
        put("reclaims/h1", b"{}"),
    ]


def _records(s: Scene) -> list[Json]:
    """What hosts say of themselves, of others and in lies."""
    record = _record()
    return [
        put("hosts/h2", replace(record, name="h2")),
        put("hosts/h2", record),
        put("hosts/h3", replace(record, name="h3", underlay=ip_address("203.0.113.3"))),
        put("hosts/h1", replace(record, name="h2")),
        put("hosts/h1", replace(record, underlay=ip_address("203.0.113.2"))),
        put("hosts/h1", replace(record, underlay=ip_address("203.0.113.3"))),
        put("hosts/h1", replace(record, underlay=ip_address("::ffff:203.0.113.2"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("224.0.0.1"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("127.0.0.1"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("255.255.255.255"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("0.0.0.0"), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address(s.theirs["address"]), segment=None)),
        put("hosts/h1", replace(record, underlay=ip_address("10.66.0.1"), segment=None)),
        put("hosts/h1", replace(record, segment=ip_network("0.0.0.0/0"))),
        put("hosts/h1", replace(record, segment=ip_network("198.51.100.0/24"))),
        put("hosts/h1", replace(record, state=HostState.EVICTED)),
        put("hosts/h1", replace(record, abilities=("x" * 5000,))),
        put("hosts/h1", codec.encode(record) + b" " * 5000),
        put("hosts/h1", b"not json"),
        put("hosts/h1", b"[" * 5000),
        put("hosts/h1", codec.encode(record).replace(b'"v":1', b'"v":99')),
        put("hosts/h1", codec.encode(record).replace(b"203.0.113.1", b"203.0.113.01")),
        put("hosts/h1", record, s.own_session),
    ]


def _reports(s: Scene) -> list[Json]:
    told, alive_h2 = Observed("h1", 1.0), Alive("h2", "evil", 1.0)
    return [
        put("inventory/h2", Inventory("h2")),
        put("inventory/h1", Inventory("h2")),
        put("observed/h2", replace(told, host="h2")),
        put("observed/h1", replace(told, host="h2")),
        put("observed/h1", replace(told, networks={s.jewels["id"]: NetworkObserved(1)})),
        put("observed/h1", replace(told, networks={s.jewels["id"]: NetworkObserved(0, (Condition("x", "y", 1.0),))})),
        put("observed/h1", replace(told, networks={"bbbbbbbbbbbb": NetworkObserved(1)})),
        put("alive/h2", alive_h2, s.session),
        put("alive/h2", alive_h2, s.own_session),
        put("alive/h1", replace(alive_h2, host="h1"), s.session),
        put("alive/h1", replace(alive_h2, host="h1")),
        put("alive/h1", alive_h2, s.own_session),
        put("alive/h1", replace(alive_h2, host="h1"), "memory-session"),
    ]


def _spellings() -> list[Json]:
    record = _record()
    return [
        put("hosts/h1/x", record),
        put("hosts//h1", record),
        put("HOSTS/h1", record),
        put("hosts/h1\u200b", record),
        put("hosts/../alive/h2", record),
        put(".kvnet/sessions/x", b"{}"),
    ]


def _removals(s: Scene) -> list[Json]:
    network = s.shared["id"]
    return [
        *(delete(key) for key in (f"endpoints/{network}/{s.theirs['id']}", f"endpoints/{network}/{s.mine['id']}")),
        *(delete(key) for key in ("local/h2/" + s.theirs["id"], "local/h1/" + s.mine["id"], "hosts/h2", "hosts/h1")),
        *(delete(key) for key in ("alive/h2", "observed/h2", "inventory/h2", "reclaims/h2", f"networks/{network}")),
        *(delete(key) for key in ("names/shared", "tokens/x", "secrets/gateway", "meta/cluster", "questions/h2/q")),
        *(delete(key) for key in (f"addresses/{network}/{s.theirs['address']}", "guards/subnets", "leader/upkeep")),
    ]


def _carried_along(s: Scene) -> list[Json]:
    """One that may be written does not carry another one along."""
    record, answer = _record(), Answer("q", "h1", 1.0, {"forged": True})
    fresh = put(f"endpoints/{s.shared['id']}/evil", replace(_stolen(s), id="evil", name="evil"))
    return [
        {"checks": [], "writes": [put("hosts/h1", record), fresh]},
        {"checks": [{"check": "present", "key": "questions/h2/q"}], "writes": [put("answers/q", answer)]},
    ]


def _probing(s: Scene) -> list[Json]:
    """Checks that would tell by their outcome what is there."""
    asked = [f"endpoints/{s.jewels['id']}/{s.vault['id']}", f"names/{JEWELS}", "alive/h2", "tokens/x", "hosts/h2", "x"]
    kinds = ({"check": "absent"}, {"check": "present"}, {"check": "unchanged", "version": 1})
    return [
        {"checks": [{**check, "key": key}], "writes": written}
        for key in asked
        for check in kinds
        for written in ([put("hosts/h1", _record())], [])
    ]


def sessions(s: Scene) -> list[Attempt]:
    path = f"/v1/store/sessions/{quote(s.session, safe='')}"
    return [
        ("POST", f"{path}/refresh", {"ttl_s": 60}),
        ("DELETE", path, None),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": s.session}),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": "../" + s.session}),
        ("POST", "/v1/store/sessions", {"ttl_s": 60, "resume": ""}),
        ("POST", "/v1/store/sessions", {"ttl_s": 1e9}),
        ("POST", "/v1/store/sessions", {"ttl_s": 0.001}),
        ("DELETE", "/v1/store/sessions/abc", None),
        ("POST", f"/v1/store/sessions/{s.own_session[1:]}/refresh", {"ttl_s": 60}),
        ("POST", f"/v1/store/sessions/{s.own_session}A/refresh", {"ttl_s": 60}),
    ]

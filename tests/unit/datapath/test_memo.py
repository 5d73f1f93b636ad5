"""What is remembered between passes never changes a result, whatever comes, goes, moves or is shared meanwhile."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.census import Course
from datapath.conditions import findings
from datapath.desired import Attachment, HostView, Memo, desired
from kvnet.model import Driver, Endpoint, Host, Network, Subnet

ID = "00000000000a"
SUBNET = Subnet(ip_network("10.9.0.0/24"), ip_address("10.9.0.1"))
NETWORK = Network(ID, "n", Driver.OVERLAY, (SUBNET,), 0.0, vni=7)
HERE = "h0"

# Few addresses, MACs and hosts, so that endpoints move, replace and collide.
endpoint = st.builds(
    lambda number, host, address, mac, created: Endpoint(
        f"e{number}", ID, host, f"e{number}", (ip_address("10.9.0.10") + address,), f"02:00:00:00:00:{mac:02x}", created
    ),
    st.integers(0, 11),
    st.sampled_from((HERE, "h1", "h2", "h3", "unknown")),
    st.integers(0, 11),
    st.integers(1, 12),
    st.sampled_from((1.0, 2.0)),
)
change = st.one_of(
    st.tuples(st.just("put"), endpoint),
    st.tuples(st.just("remove"), st.integers(0, 11)),
    st.tuples(st.just("host"), st.tuples(st.sampled_from(("h1", "h2", "h3")), st.integers(1, 250), st.booleans())),
    st.tuples(st.just("forget"), st.sampled_from(("h1", "h2", "h3"))),
    st.tuples(st.just("nothing"), st.none()),
)


@given(st.lists(endpoint, max_size=12), st.lists(change, min_size=1, max_size=12), st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_memo_that_saw_everything_before_gives_what_none_gives(
    first: list[Endpoint], changes: list[tuple[str, object]], is_told_what_changed: bool
) -> None:
    endpoints = {one.id: one for one in first}
    changed: list[str] = []
    hosts = {f"h{number}": Host(f"h{number}", ip_address("198.18.0.1") + number, 1500) for number in range(4)}
    memo = Memo()
    for kind, what in [("nothing", None), *changes]:
        _apply(kind, what, endpoints, hosts)
        changed += [what.id] if isinstance(what, Endpoint) else [f"e{what}"]
        here = [one.id for one in endpoints.values() if one.host == HERE]
        attachments = {id_: Attachment(id_, f"/run/netns/{id_}", "eth0") for id_ in here}
        courses = {ID: Course(first, len(changed), tuple(changed))} if is_told_what_changed else {}
        view = HostView(HERE, dict(hosts), {ID: NETWORK}, {ID: dict(endpoints)}, attachments, courses=courses)

        assert desired(view, ID, memo) == desired(view, ID)
        assert findings(view, ID, memo) == findings(view, ID)


def _apply(kind: str, what: object, endpoints: dict[str, Endpoint], hosts: dict[str, Host]) -> None:
    match kind, what:
        case "put", Endpoint() as one:
            endpoints[one.id] = one
        case "remove", int(number):
            endpoints.pop(f"e{number}", None)
        case "host", (str(name), int(number), bool(is_narrow)):
            hosts[name] = Host(name, ip_address("198.18.1.0") + number, 1400 if is_narrow else 1500)
        case "forget", str(name):
            hosts.pop(name, None)

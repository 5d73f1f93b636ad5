"""Which tracked connections lead to a port of this host itself, and were let through to nobody.

What began while nobody published the port keeps its way for as long as its caller goes on; deleted, its next packet is
looked at anew. Only what is for an address of this host and was not led elsewhere is meant: what others talk about
through this host, or this host with others, stays. Pure but for the messages that it makes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from datapath.objects import Failure, ForgetCallers, Ip
from worker.kernel import messages
from worker.kernel.conntrack import (
    AF_INET,
    AF_INET6,
    CTA_FILTER,
    CTA_FILTER_ORIG_FLAGS,
    CTA_FILTER_REPLY_FLAGS,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    FLAGS,
    GENERIC,
    GET,
    PORT,
    Flow,
    Flows,
    parsed,
)
from worker.kernel.netlink import Message, attribute, attributes, nested

BY_PROTOCOL, BY_DESTINATION_PORT = 1 << 3, 1 << 5  # CTA_FILTER_FLAG()
FEW = 8  # above it, one look at all of a protocol's is cheaper than one for each port
LOOPBACK4 = b"\x7f"


def forget(flows: Flows, operations: Sequence[ForgetCallers], own: Collection[Ip]) -> list[Failure]:
    """`own`: the addresses of this host. That there are no such connections is no failure."""
    return flows.end(operations, dumps(operations), lambda bodies: meant(bodies, operations, own))


def dumps(operations: Collection[ForgetCallers]) -> list[Message]:
    """What has to be looked at. The kernel picks by protocol and port; one that cannot tells all, which is as good."""
    wanted = {(op.version, op.protocol, op.port) for op in operations}
    if len(wanted) > FEW:
        wanted = {(version, protocol, 0) for version, protocol, _ in wanted}
    return [_dump(*one) for one in sorted(wanted)]


def _dump(version: int, protocol: int, port: int) -> Message:
    proto = [attribute(CTA_PROTO_NUM, bytes([protocol]))]
    if port:
        proto.append(attribute(CTA_PROTO_DST_PORT, PORT.pack(port)))
    chosen = nested(
        CTA_FILTER,
        attribute(CTA_FILTER_ORIG_FLAGS, FLAGS.pack(BY_PROTOCOL | (BY_DESTINATION_PORT if port else 0))),
        attribute(CTA_FILTER_REPLY_FLAGS, FLAGS.pack(0)),
    )
    family = AF_INET if version == 4 else AF_INET6
    original = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, *proto))
    return Message(GET, 0, GENERIC.pack(family, 0, 0) + original + chosen)


def meant(
    bodies: Iterable[bytes], operations: Sequence[ForgetCallers], own: Collection[Ip]
) -> Iterator[tuple[ForgetCallers, Flow]]:
    """What two of the operations mean is there twice: it is gone then, which is no failure."""
    by_port: dict[tuple[int, int, int], list[ForgetCallers]] = {}
    for operation in operations:
        by_port.setdefault((operation.version, operation.protocol, operation.port), []).append(operation)
    for body in bodies:
        flow = parsed(body)
        if flow is None or (flow.replier, flow.port) != (flow.destination, flow.destination_port):
            continue
        asked = by_port.get((4 if len(flow.destination) == 4 else 6, flow.protocol, flow.destination_port), ())
        yield from ((op, flow) for op in asked if _is_at(flow.destination, op.address, own))


def _is_at(destination: Ip, address: Ip, own: Collection[Ip]) -> bool:
    if address:
        return destination == address
    return destination in own or (len(destination) == 4 and destination.startswith(LOOPBACK4))


def local_addresses(bodies: Iterable[bytes]) -> set[Ip]:
    """Of all devices, from a dump of addresses."""
    found = set()
    for body in bodies:
        fields = attributes(body, messages.ADDRESS.size)
        address = fields.get(messages.IFA_LOCAL) or fields.get(messages.IFA_ADDRESS)
        if address:
            found.add(address)
    return found

"""Ends tracked connections of a workload's address: what was let through once would go on without being asked again.

Deletes by what the reply looks like, which the kernel does in one pass over its table; for more than a few, one dump
and a delete of each flow that is meant is cheaper. It is also the only way on kernels that cannot filter, and for IPv6:
there the kernel's filter means every address but the given one (measured on Linux 6.18). Knows ctnetlink and nothing
of why a connection has to end. Runs in the kernel thread only.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from datapath.objects import Failure, ForgetCallers, ForgetFlows, Ip, Operation
from worker.kernel.failures import KERNEL_LACKS, Told, failure
from worker.kernel.netlink import NETLINK_NETFILTER, Message, Netlink, Refusal, attribute, attributes, nested

# linux/netfilter/nfnetlink_conntrack.h
SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
GET, DELETE = SUBSYSTEM | 1, SUBSYSTEM | 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
BY_SOURCE, BY_PROTOCOL, BY_SOURCE_PORT = 1 << 0, 1 << 3, 1 << 4  # CTA_FILTER_FLAG()

GENERIC = Struct(">BBH")  # nfgenmsg: family, version, resource
PORT = Struct(">H")
FLAGS = Struct("=I")
AF_INET, AF_INET6 = 2, 10
# Each filtered delete walks the whole table: 1.6 to 3.6 ms at 10,000 flows; a dump of it takes 67 ms.
FEW = 8
NO_FILTER = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT})
NO_CONNTRACK = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT})


class Flow(NamedTuple):
    """A tracked connection: who began it, to whom, who answers, and what names it for the kernel."""

    source: Ip
    replier: Ip
    protocol: int
    port: int  # of the replier
    delete: Message
    destination: Ip
    destination_port: int


class Flows:
    """The connections that the kernel tracks in this namespace. The socket is opened when it is needed first."""

    def __init__(self) -> None:
        self._netlink: Netlink | None = None
        self._can_filter = True

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()

    def forget(self, operations: Sequence[ForgetFlows]) -> list[Failure]:
        """That there are none is no failure."""
        netlink = self._opened()
        distinct = list(dict.fromkeys(operations))
        ipv4 = [operation for operation in distinct if len(operation.address) == 4]
        failures: list[Failure] = []
        if ipv4 and len(ipv4) <= FEW and self._can_filter:
            refused = self._by_filter(netlink, ipv4)
            if refused is None:
                self._can_filter = False
            else:
                failures += refused
                distinct = [operation for operation in distinct if len(operation.address) != 4]
        dumps = [dump_flows(family) for family in families(distinct)]
        return failures + self.end(distinct, dumps, lambda bodies: meant(bodies, distinct))

    def end(
        self,
        operations: Sequence[ForgetFlows | ForgetCallers],
        dumps: Sequence[Message],
        choose: Callable[[Iterable[bytes]], Iterable[tuple[Operation, Flow]]],
    ) -> list[Failure]:
        """The flows that are chosen from these dumps, one by one, for these operations."""
        try:
            netlink = self._opened()
            doomed = list(choose([body for message in dumps for body in netlink.dump(message)]))
            refusals = netlink.request([flow.delete for _, flow in doomed])
        except OSError as error:
            if error.errno not in NO_CONNTRACK:
                raise
            module = "nf_conntrack_netlink"
            words = f"the kernel tells no connections: it lacks the module {module}; modprobe {module}"
            return [failure(operation, Told(error.errno or 0, words, KERNEL_LACKS)) for operation in operations]
        return [_failed(doomed[r.place][0], r) for r in refusals if r.errno != errno.ENOENT]

    def _opened(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink(NETLINK_NETFILTER)
        return self._netlink

    def _by_filter(self, netlink: Netlink, operations: Sequence[ForgetFlows]) -> list[Failure] | None:
        """None where the kernel cannot do it this way."""
        wanted = [(operation, message) for operation in operations for message in filtered(operation)]
        refusals = netlink.request([message for _, message in wanted])
        if any(refusal.errno in NO_FILTER for refusal in refusals):
            return None
        return [_failed(wanted[refusal.place][0], refusal) for refusal in refusals]


def filtered(operation: ForgetFlows) -> Iterator[Message]:
    """Deletes of all flows where the workload answers and, unless it is about a port, of those that it began.

    For IPv4 only.
    """
    flags = BY_SOURCE | (BY_PROTOCOL | BY_SOURCE_PORT if operation.port else 0)
    yield _filtered(operation, CTA_TUPLE_REPLY, 0, flags)
    if not operation.port:
        yield _filtered(operation, CTA_TUPLE_ORIG, BY_SOURCE, 0)


def _filtered(operation: ForgetFlows, direction: int, original: int, reply: int) -> Message:
    parts = [nested(CTA_TUPLE_IP, attribute(CTA_IP_V4_SRC, operation.address))]
    if operation.port:
        protocol = attribute(CTA_PROTO_NUM, bytes([operation.protocol]))
        parts.append(nested(CTA_TUPLE_PROTO, protocol, attribute(CTA_PROTO_SRC_PORT, PORT.pack(operation.port))))
    chosen = nested(
        CTA_FILTER,
        attribute(CTA_FILTER_ORIG_FLAGS, FLAGS.pack(original)),
        attribute(CTA_FILTER_REPLY_FLAGS, FLAGS.pack(reply)),
    )
    return Message(DELETE, 0, GENERIC.pack(AF_INET, 0, 0) + nested(direction, *parts) + chosen)


def dump_flows(family: int) -> Message:
    return Message(GET, 0, GENERIC.pack(family, 0, 0))


def families(operations: Iterable[ForgetFlows]) -> list[int]:
    return sorted({AF_INET if len(operation.address) == 4 else AF_INET6 for operation in operations})


def meant(bodies: Iterable[bytes], operations: Iterable[ForgetFlows]) -> Iterator[tuple[ForgetFlows, Flow]]:
    """The flows that one of the operations is about, each once."""
    whole = {operation.address: operation for operation in operations if not operation.port}
    published = {(op.address, op.protocol, op.port): op for op in operations if op.port}
    for body in bodies:
        flow = parsed(body)
        if flow is None:
            continue
        operation = (
            whole.get(flow.replier) or whole.get(flow.source) or published.get((flow.replier, flow.protocol, flow.port))
        )
        if operation is not None:
            yield operation, flow


def parsed(body: bytes) -> Flow | None:
    """None for what is not understood: it is left alone."""
    fields = attributes(body, GENERIC.size)
    if CTA_TUPLE_ORIG not in fields or CTA_TUPLE_REPLY not in fields:
        return None
    original, reply = attributes(fields[CTA_TUPLE_ORIG], 0), attributes(fields[CTA_TUPLE_REPLY], 0)
    proto = attributes(reply.get(CTA_TUPLE_PROTO, b""), 0)
    asked = attributes(original.get(CTA_TUPLE_PROTO, b""), 0)
    name = nested(CTA_TUPLE_ORIG, fields[CTA_TUPLE_ORIG])
    name += b"".join(attribute(kind, fields[kind]) for kind in (CTA_ID, CTA_ZONE) if kind in fields)
    return Flow(
        source=_address(original, CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        replier=_address(reply, CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        protocol=proto.get(CTA_PROTO_NUM, b"\0")[0],
        port=_port(proto.get(CTA_PROTO_SRC_PORT, b"")),
        delete=Message(DELETE, 0, GENERIC.pack(body[0], 0, 0) + name),
        destination=_address(original, CTA_IP_V4_DST, CTA_IP_V6_DST),
        destination_port=_port(asked.get(CTA_PROTO_DST_PORT, b"")),
    )


def _address(tuple_: dict[int, bytes], ipv4: int, ipv6: int) -> Ip:
    addresses = attributes(tuple_.get(CTA_TUPLE_IP, b""), 0)
    return addresses.get(ipv4) or addresses.get(ipv6, b"")


def _port(value: bytes) -> int:
    return int(PORT.unpack(value)[0]) if len(value) == PORT.size else 0


def _failed(operation: Operation, refusal: Refusal) -> Failure:
    return failure(operation, Told(refusal.errno, refusal.text or "its tracked connections cannot be ended"))

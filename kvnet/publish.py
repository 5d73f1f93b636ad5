"""The short spelling of a published port, as people know it from Docker: `--publish 127.0.0.1:8080:80/tcp`.

Pure: text in, the body of the API out. Checks the form and nothing else; whether a port is free, or an address of the
host's, others say. The same parser serves `kvnet endpoint create` and `kvnet attach`.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from kvnet import rules
from kvnet.errors import Invalid
from kvnet.wire import PortBody

SPELLING = "[ADDRESS:]HOST[-END]:PORT[-END][/tcp|udp], or PORT[-END][/tcp|udp] for any free port of the host"
MAX_TEXT = 128
_PUBLISH = re.compile(
    r"(?:(?:(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<host>\d{1,5}(?:-\d{1,5})?)?:)?"
    r"(?P<port>\d{1,5}(?:-\d{1,5})?)(?:/(?P<protocol>[A-Za-z]+))?\Z"
)


def parse_publish(text: str) -> PortBody:
    """
    Raises:
        Invalid: it is not the spelling; says what would be.
    """
    found = _PUBLISH.match(text) if len(text) <= MAX_TEXT else None
    if found is None:
        raise _invalid(text, "it is not of that form")
    protocol = (found["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise _invalid(text, f"{protocol!r} is not a protocol that can be published")
    port, port_end = _span(text, found["port"])
    body = PortBody(port=port, protocol=protocol)
    if port_end != port:
        body["port_end"] = port_end
    if found["host"]:
        host_port, host_end = _span(text, found["host"])
        body["host_port"] = host_port
        if host_end != host_port:
            body["host_port_end"] = host_end
        if port_end != port and host_end - host_port != port_end - port:
            raise _invalid(text, "the two ranges are not of one length")
    if found["address"]:
        body["host_address"] = _address(text, found["address"].strip("[]"))
    return body


def shown(port: PortBody) -> str:
    """A single mapping the way it is written: `0.0.0.0:8080->80/tcp`, without the address where it is all of them."""
    address = port.get("host_address") or ""
    where = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    return f"{where}{port.get('host_port') or ''}->{port['port']}/{port.get('protocol', 'tcp')}"


def _span(text: str, span: str) -> tuple[int, int]:
    first, _, last = span.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise _invalid(text, f"{span} is not a port or a range of ports from 1 to 65535")
    return low, high


def _address(text: str, address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        raise _invalid(text, f"{address} is not an IP address") from None


def _invalid(text: str, why: str) -> Invalid:
    return Invalid.field("/ports", f"{rules.shown(text)} does not publish a port: {why}", SPELLING)

"""Asks a link for its driver and its offloads, by the ioctl of ethtool. Reads only."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
GET_DRIVER, GET_STRINGS, GET_COUNTS, GET_FEATURES = 0x03, 0x1B, 0x37, 0x3A
FEATURES = 4  # ETH_SS_FEATURES
NAME_BYTES = 32
DRIVER_BYTES = 196


def driver_of(device: str) -> str:
    answer = _ask(device, struct.pack("=I", GET_DRIVER).ljust(DRIVER_BYTES, b"\0"))
    return answer[4 : 4 + NAME_BYTES].split(b"\0", 1)[0].decode("ascii", "replace") if answer else ""


def features_of(device: str) -> dict[str, bool]:
    """Name -> whether it is on; empty where the device does not say."""
    counted = _ask(device, struct.pack("=IIQI", GET_COUNTS, 0, 1 << FEATURES, 0))
    count = struct.unpack_from("=I", counted, 16)[0] if counted else 0
    if not count:
        return {}
    blocks = -(-count // 32)
    names = _ask(device, struct.pack("=III", GET_STRINGS, FEATURES, count) + bytes(count * NAME_BYTES))
    values = _ask(device, struct.pack("=II", GET_FEATURES, blocks) + bytes(blocks * 16))
    if not names or not values:
        return {}
    active = [struct.unpack_from("=4I", values, 8 + block * 16)[2] for block in range(blocks)]
    found = {}
    for number in range(count):
        start = 12 + number * NAME_BYTES
        name = names[start : start + NAME_BYTES].split(b"\0", 1)[0].decode("ascii", "replace")
        found[name] = bool(active[number // 32] >> (number % 32) & 1)
    return found


def _ask(device: str, request: bytes) -> bytes:
    buffer = array.array("B", request)
    address, _ = buffer.buffer_info()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            fcntl.ioctl(asked, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
    except OSError:
        return b""
    return buffer.tobytes()

"""Addresses as the kernel writes them: packed bytes from the text and objects of the vocabulary."""

from __future__ import annotations

from datapath.objects import Ip, Mac

FLOOD_MAC: Mac = bytes(6)  # the all-zero MAC of a VXLAN forwarding entry: frames for unknown and group addresses
IPV6_LENGTH = 16
_LINK_LOCAL_PREFIX = b"\xfe\x80" + bytes(6)


def packed_mac(text: str) -> Mac:
    return bytes.fromhex(text.replace(":", ""))


def link_local(mac: Mac) -> Ip:
    """The fe80:: address that an interface derives from its MAC (modified EUI-64, RFC 4291 appendix A)."""
    return b"%b%c%b\xff\xfe%b" % (_LINK_LOCAL_PREFIX, mac[0] ^ 2, mac[1:3], mac[3:])


def contains(block: Ip, length: int, address: Ip) -> bool:
    """Whether the address is in the block of that prefix length, and of its family."""
    if len(block) != len(address):
        return False
    shift = len(block) * 8 - length
    return int.from_bytes(block, "big") >> shift == int.from_bytes(address, "big") >> shift

"""Our nftables rules as text for `nft -f -`: fixed chains, and sets for all that changes.

Pure. Two tables of ours, nothing else: `inet kvnet` forwards and masquerades, `bridge kvnet` guards the bridges' ports.
They judge only what comes from or goes to our devices; all other traffic passes through untouched. Nothing that comes
from outside is ever put into the text but device names, addresses and MACs, in their own spelling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from datapath.objects import BRIDGE_PREFIX, VETH_PREFIX, VXLAN_PREFIX, Firewall

TABLE = "kvnet"
FAMILIES = ("inet", "bridge")
# Docker's FORWARD chain drops what it does not know, and an accept of ours does not overrule that. What we admit bears
# this mark, and one rule there accepts it. Our priority is lower, so the mark is there in time.
MARK = 0x80000
SEAL = "sealed_"  # + fingerprint: an empty chain that says the rules are as we left them

# No anonymous sets in here: their names are numbered, and the rules must look the same each time.
RULES = f"""
table inet {TABLE} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set same {{ type ifname . ifname; }}
  set subnets4 {{ type ipv4_addr; flags interval; }}
  set subnets6 {{ type ipv6_addr; flags interval; }}
  chain admit {{
    meta mark set meta mark | {MARK:#010x}
    accept
  }}
  chain from_ours {{
    iifname @internal drop
    oifname @internal drop
    ct state established,related goto admit
    ct state invalid drop
    oifname @bridges drop
    goto admit
  }}
  chain to_ours {{
    oifname @internal drop
    ct state established,related goto admit
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname . oifname @same goto admit
    iifname @bridges goto from_ours
    oifname @bridges goto to_ours
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname @bridges ct state established,related accept
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip6 daddr ::1 drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname "lo" accept
    ip saddr @subnets4 oifname != @bridges masquerade
    ip6 saddr @subnets6 oifname != @bridges masquerade
  }}
}}
table bridge {TABLE} {{
  set vxlans {{ type ifname; }}
  set gateway_macs {{ type ether_addr; }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname @vxlans ether saddr @gateway_macs drop
    iifname "{VETH_PREFIX}*" ether saddr @gateway_macs drop
  }}
  chain output {{
    type filter hook output priority -200; policy accept;
    oifname @vxlans ether saddr @gateway_macs drop
  }}
  chain forward {{
    type filter hook forward priority -200; policy accept;
    iifname "{VETH_PREFIX}*" icmpv6 type nd-router-advert drop
    iifname "{VETH_PREFIX}*" icmpv6 type nd-redirect drop
    iifname "{VXLAN_PREFIX}*" icmpv6 type nd-router-advert drop
    iifname "{VXLAN_PREFIX}*" icmpv6 type nd-redirect drop
  }}
}}
"""
RULES_DIGEST = hashlib.sha256(RULES.encode()).digest()

Elements = Mapping[tuple[str, str], frozenset[str]]  # (family, set) -> elements as nft spells them
CHUNK = 500  # elements a line, so that no line becomes unwieldy


def elements(firewall: Firewall) -> Elements:
    """What every set holds, in nft's spelling."""
    bridges = frozenset(map(_device, firewall.bridges))
    return {
        ("inet", "bridges"): bridges,
        ("inet", "internal"): frozenset(map(_device, firewall.internal)),
        ("inet", "same"): frozenset(f"{bridge} . {bridge}" for bridge in bridges),
        ("inet", "subnets4"): frozenset(map(_subnet, firewall.subnets4)),
        ("inet", "subnets6"): frozenset(map(_subnet, firewall.subnets6)),
        ("bridge", "vxlans"): frozenset(map(_device, firewall.vxlans)),
        ("bridge", "gateway_macs"): frozenset(mac.hex(":") for mac in firewall.gateway_macs),
    }


def replacement(firewall: Firewall, seal: str) -> str:
    """Both tables anew, in one transaction, whatever is there now."""
    # Named before they are deleted, because deleting what is not there is an error.
    gone = "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in FAMILIES)
    wanted = elements(firewall)
    return gone + RULES + sealing(seal) + "".join(_lines("add", place, wanted[place]) for place in sorted(wanted))


def difference(firewall: Firewall, actual: Firewall) -> str:
    """From one content to another, rules untouched. Removals first: intervals must not overlap on the way."""
    wanted, held = elements(firewall), elements(actual)
    places = sorted(wanted)
    removals = (_lines("delete", place, held[place] - wanted[place]) for place in places)
    additions = (_lines("add", place, wanted[place] - held[place]) for place in places)
    return "".join(removals) + "".join(additions)


def sealing(seal: str) -> str:
    return f"add chain inet {TABLE} {SEAL}{seal}\n" if seal else ""


def unsealing(seal: str) -> str:
    return f"delete chain inet {TABLE} {SEAL}{seal}\n"


def _lines(verb: str, place: tuple[str, str], items: Iterable[str]) -> str:
    ordered = sorted(items)
    family, name = place
    chunks = (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))
    return "".join(f"{verb} element {family} {TABLE} {name} {{ {', '.join(chunk)} }}\n" for chunk in chunks)


def _device(name: str) -> str:
    """Device names of ours are a prefix and hexadecimal digits or letters; nothing else may reach nft's parser."""
    if not (name.startswith((BRIDGE_PREFIX, VXLAN_PREFIX)) and name.isascii() and name.isalnum()):
        raise ValueError(f"{name!r} is not a device name of kvnet's")
    return f'"{name}"'


def _subnet(block: tuple[bytes, int]) -> str:
    return str(ip_network(block))

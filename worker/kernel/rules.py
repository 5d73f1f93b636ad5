"""Our nftables rules as text for `nft -f -`: fixed chains, and sets and maps for all that changes.

Pure. Two tables of ours, nothing else: `inet kvnet` forwards, publishes and masquerades, `bridge kvnet` guards the
bridges' ports. They judge only what comes from or goes to our devices; all other traffic passes through untouched. An
accept of ours ends our own chain only, so whatever an operator drops, on any hook and priority, stays dropped; and at
the hooks of address translation we come after him, so that his translation wins.
"""

from __future__ import annotations

import hashlib

from datapath.objects import VETH_PREFIX, VXLAN_PREFIX, Firewall
from worker.kernel.elements import difference, elements, everything

__all__ = ["FAMILIES", "MARK", "RULES", "RULES_DIGEST", "SEAL", "TABLE", "difference", "elements", "replacement"]

TABLE = "kvnet"
FAMILIES = ("inet", "bridge")
# Docker's FORWARD chain drops what it does not know, and an accept of ours does not overrule that. What we admit bears
# this mark, and one rule there accepts it. Our priority is lower, so the mark is there in time.
MARK = 0x80000
SEAL = "sealed_"  # + fingerprint: an empty chain that says the rules are as we left them

# No anonymous sets in here: their names are numbered, and the rules must look the same each time.
#
# forward: peered networks come first, because the replies of a peer may take another way than the requests, and are
# `invalid` to a host that sees only half of the conversation. `within` is who is behind another host: it is believed
# only of what does not come from a bridge of ours.
# The very first rule is for frames that a bridge passes on with br_netfilter: those that the bridge table admitted.
# apart: over the tunnel of a network without ICC comes what a peer's host routed, from the gateway's MAC, and nothing
# else. No workload can send from that MAC, nor set a mark that outlives its namespace.
# established: to another network an answer is not admitted for being one. Those of peers and of published ports pass
# by their own rules; so what is established between two networks ends when they are no longer peers.
# dockers: who may open a connection to containers there is for Docker to say, so our mark, which would overrule it, is
# not set. What was asked for by a published port, Docker's or ours, is translated, and passes before that.
# input: the workloads of an internal network find their gateway, where they have one, and reach nothing of the host but
# its answers about names.
# dns: a port 53 that somebody publishes is not led away from there; in a bridge nobody else is asked for that address,
# nor believed to have it.
# The bridge table sees every frame, so each of its chains first lets go what it cannot mean.
# published: 127.0.0.1 is led on in the output hook only. From a workload it would be a way around a port's address.
# postrouting: a publication that leads back into the network it came from is masqueraded, else the answer would go
# straight to the caller, who asked another address. By interfaces what is routed, by addresses what is only bridged.
RULES = f"""
table inet {TABLE} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set loops {{ type ifname . ifname; }}
  set same {{ type ifname . ifname; }}
  set pairs {{ type ifname . ifname; }}
  set within4 {{ type ifname . ipv4_addr; flags interval; }}
  set within6 {{ type ifname . ipv6_addr; flags interval; }}
  set blocks4 {{ type ipv4_addr; flags interval; }}
  set blocks6 {{ type ipv6_addr; flags interval; }}
  set same4 {{ type ipv4_addr . ipv4_addr; flags interval; }}
  set same6 {{ type ipv6_addr . ipv6_addr; flags interval; }}
  set subnets4 {{ type ipv4_addr; flags interval; }}
  set subnets6 {{ type ipv6_addr; flags interval; }}
  set dns {{ type ipv4_addr; }}
  set dockers {{ type ifname; }}
  map at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  chain admit {{
    meta mark set meta mark | {MARK:#010x}
    accept
  }}
  chain from_ours {{
    oifname != @bridges iifname . ip daddr @within4 goto admit
    oifname != @bridges iifname . ip6 daddr @within6 goto admit
    iifname @internal drop
    oifname @internal drop
    ct state related goto admit
    ct state invalid drop
    ct status dnat goto admit
    oifname @bridges drop
    ip daddr @blocks4 drop
    ip6 daddr @blocks6 drop
    oifname @dockers accept
    goto admit
  }}
  chain to_ours {{
    oifname . ip saddr @within4 goto admit
    oifname . ip6 saddr @within6 goto admit
    oifname @internal drop
    ct state established,related goto admit
    ct state invalid drop
    ct status dnat goto admit
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    meta mark & {MARK:#010x} == {MARK:#010x} iifname . oifname @loops accept
    iifname . oifname @same goto admit
    iifname . oifname @pairs goto admit
    iifname @bridges goto from_ours
    oifname @bridges goto to_ours
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname @bridges ct state established,related accept
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip6 daddr ::1 drop
    iifname @internal ip daddr @dns udp dport 53 accept
    iifname @internal ip daddr @dns tcp dport 53 accept
    iifname @internal icmpv6 type 133-137 accept
    iifname @internal drop
  }}
  chain published {{
    dnat ip to ip daddr . meta l4proto . th dport map @at4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain prerouting {{
    type nat hook prerouting priority -99; policy accept;
    ip daddr 127.0.0.0/8 accept
    ip daddr @dns accept
    fib daddr type local goto published
  }}
  chain output {{
    type nat hook output priority -99; policy accept;
    ip6 daddr ::1 accept
    ip daddr @dns accept
    fib daddr type local goto published
  }}
  chain back {{
    iifname . oifname @loops masquerade
    ip saddr . ip daddr @same4 masquerade
    ip6 saddr . ip6 daddr @same6 masquerade
  }}
  chain postrouting {{
    type nat hook postrouting priority 101; policy accept;
    oifname "lo" accept
    ct status dnat jump back
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip daddr @blocks4 accept
    ip6 daddr @blocks6 accept
    ip saddr @subnets4 oifname != @bridges masquerade
    ip6 saddr @subnets6 oifname != @bridges masquerade
  }}
}}
table bridge {TABLE} {{
  set dns {{ type ipv4_addr; }}
  set vxlans {{ type ifname; }}
  set apart {{ type ifname; }}
  set gateway_macs {{ type ether_addr; }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    ether saddr != @gateway_macs accept
    iifname "{VETH_PREFIX}*" ether saddr @gateway_macs drop
    iifname @vxlans ether saddr @gateway_macs ether type arp drop
    iifname @vxlans ether saddr @gateway_macs icmpv6 type 133-137 drop
  }}
  chain output {{
    type filter hook output priority -200; policy accept;
    oifname @vxlans ether saddr @gateway_macs meta mark & {MARK:#010x} != {MARK:#010x} drop
  }}
  chain forward {{
    type filter hook forward priority -200; policy accept;
    oifname @apart drop
    iifname @apart ether saddr != @gateway_macs drop
    iifname @apart meta mark set meta mark | {MARK:#010x}
    ether type ip accept
    iifname "{VETH_PREFIX}*" arp daddr ip @dns drop
    iifname "{VETH_PREFIX}*" arp saddr ip @dns drop
    ether type != ip6 accept
    iifname "{VETH_PREFIX}*" icmpv6 type nd-router-advert drop
    iifname "{VETH_PREFIX}*" icmpv6 type nd-redirect drop
    iifname "{VXLAN_PREFIX}*" icmpv6 type nd-router-advert drop
    iifname "{VXLAN_PREFIX}*" icmpv6 type nd-redirect drop
  }}
}}
"""
RULES_DIGEST = hashlib.sha256(RULES.encode()).digest()


def replacement(firewall: Firewall, seal: str) -> str:
    """Both tables anew, in one transaction, whatever is there now."""
    # Named before they are deleted, because deleting what is not there is an error.
    gone = "".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in FAMILIES)
    return gone + RULES + sealing(seal) + everything(firewall)


def sealing(seal: str) -> str:
    return f"add chain inet {TABLE} {SEAL}{seal}\n" if seal else ""


def unsealing(seal: str) -> str:
    return f"delete chain inet {TABLE} {SEAL}{seal}\n"

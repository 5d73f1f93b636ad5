"""The targets of iptables: those that decide, and those that do nothing to a packet's fate."""

from __future__ import annotations

from datapath.rules.ruleset import Action

TARGETS_THAT_DECIDE = {
    "ACCEPT": Action.ACCEPT,
    "DROP": Action.DROP,
    "REJECT": Action.DROP,
    "RETURN": Action.RETURN,
    "NFQUEUE": Action.UNKNOWN,
}
TARGETS_WITHOUT_MEANING = frozenset(
    {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "CHECKSUM", "SET", "AUDIT", "TEE"}
    | {"CLASSIFY", "DSCP", "TOS", "TTL", "HL", "SECMARK", "CONNSECMARK"}
)

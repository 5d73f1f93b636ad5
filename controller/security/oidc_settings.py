"""What an operator says of an OpenID provider: whose word is good, for whom, for what, and how much of it.

Pure. Refuses at the start what would let the wrong ones in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from kvnet.errors import Invalid
from kvnet.rules import require_labels, shown
from kvnet.security import Limits, Role

ROLES = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)  # from most to least
_RULE = re.compile(r"([^=]+)=(.+):(admin|operator|viewer)(?:@(.+))?", re.DOTALL)
_OF_HOSTS = re.compile(r"=.+:(host|join)(?:[:@].*)?\Z", re.DOTALL)
_LIMIT = re.compile(r"(networks|endpoints|streams)=(any|\d{1,9})|rate=(any|[1-9]\d{0,8}(?:\.\d{1,3})?)")
# Nobody makes a token for somebody of the issuer's, so nobody says what he may take. Enough for a person and a script.
USUAL_LIMITS = Limits(rate=100.0, streams=32)


class Rule(NamedTuple):
    """Whoever's claim has the value, alone or among others, gets the role, in networks with all these labels; none = in
    all.

    `claim` may lead into objects: `realm_access.roles`.
    """

    claim: str
    value: str
    role: Role
    scope: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OidcSettings:
    issuer: str
    audience: str
    rules: tuple[Rule, ...]
    name_claim: str = "sub"
    limits: Limits = USUAL_LIMITS  # of each who comes

    def __post_init__(self) -> None:
        require_safe_url(self.issuer, "--oidc-issuer")
        if not self.audience:
            raise Invalid(
                "an issuer without an audience: tokens for other services would be good here",
                fix="--oidc-audience NAME",
            )
        if not self.rules:
            raise Invalid("nobody of the issuer would have a role", fix="--oidc-role CLAIM=VALUE:ROLE")


def parse_rule(text: str) -> Rule:
    """`CLAIM=VALUE:ROLE`, or `CLAIM=VALUE:ROLE@LABEL=VALUE,LABEL=VALUE`.

    Raises:
        Invalid
    """
    found = _RULE.fullmatch(text)
    if found is None and _OF_HOSTS.search(text):
        raise Invalid(
            f"{shown(text)}: nobody of an issuer's is a host",
            fix="a host gets its credential as it joins: kvnet worker join",
        )
    pairs = [one.partition("=")[::2] for one in found[4].split(",")] if found and found[4] else []
    labels = dict(pairs)
    if found is None or not all(labels.values()) or len(labels) < len(pairs):
        raise Invalid(
            f"{shown(text)} is no rule",
            fix="--oidc-role CLAIM=VALUE:ROLE or CLAIM=VALUE:ROLE@LABEL=VALUE; roles are admin, operator, viewer",
        )
    require_labels(labels, "/oidc-role")
    return Rule(found[1], found[2], Role(found[3]), tuple(sorted(labels.items())))


def parse_limits(texts: Sequence[str]) -> Limits:
    """`NAME=NUMBER` or `NAME=any`; what is not named is as usual.

    Raises:
        Invalid
    """
    chosen = asdict(USUAL_LIMITS)
    for text in texts:
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise Invalid(
                f"{shown(text)} is no limit", fix="--oidc-limit NAME=N, or any; of networks, endpoints, rate, streams"
            )
        name, number = (found[1], found[2]) if found[1] else ("rate", found[3])
        chosen[name] = None if number == "any" else float(number) if name == "rate" else int(number)
    return Limits(**chosen)


def require_safe_url(url: str, what: str) -> None:
    """Nobody on the way may put keys of his own in place of the issuer's.

    Raises:
        Invalid
    """
    parts = urlsplit(url)
    is_here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    is_private = parts.scheme == "https" or (parts.scheme == "http" and is_here)
    if is_private and parts.hostname and not (parts.fragment or parts.username):
        return
    raise Invalid(f"{what}: {shown(url)} is no https:// address", fix="name the issuer as its tokens do, with https://")

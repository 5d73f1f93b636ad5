"""Signed identities of an OpenID provider: a JWT in place of one of our tokens.

The library verifies; here is what it must insist on: an algorithm of two keys that fits the key, the issuer, the
audience, the times. Keys are fetched off the loop, kept, and fetched again for a key that is not known, at most once a
minute, whoever asks for however many. What verified is remembered for minutes. Nothing in a token says where to look.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from controller.security.oidc_settings import ROLES, OidcSettings, Rule, require_safe_url
from controller.security.principal import Principal, Via
from kvnet.errors import Forbidden, Invalid, KvnetError, StoreUnavailable, Unfit
from kvnet.rules import shown

DISCOVERY = "/.well-known/openid-configuration"
FITTING = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
NEEDED = ["exp", "iat", "iss", "aud", "sub"]
LEEWAY_S = 30.0
REMEMBERED_S = 300.0
MAX_REMEMBERED = 4096
FETCH_AGAIN_S = 60.0  # for keys that are not known
IN_ONE_STRING = frozenset({"scope", "scp"})  # values with blanks between them (RFC 8693); others may have blanks
KEPT_S = 3600.0  # then they are fetched anew, and those that the provider took back are gone
MAX_KEYS = 64
_ODD = re.compile(r"[^A-Za-z0-9._@+:/=-]")

Fetch = Callable[[str], Awaitable[bytes]]
log = logging.getLogger("kvnet.oidc")


class Keys:
    """The issuer's keys, by id."""

    def __init__(self, issuer: str, fetch: Fetch, monotonic: Callable[[], float]) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._monotonic = monotonic
        self._known: dict[str, Key] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, kid: str | None) -> Key | None:
        """Without an id the only one there is. None: the issuer has no such key.

        Raises:
            StoreUnavailable: no keys are known, and the issuer does not answer.
        """
        now = self._monotonic()
        is_old = self._fetched_at is None or now - self._fetched_at >= KEPT_S
        if (is_old or self._look_up(kid) is None) and (self._tried_at is None or now - self._tried_at >= FETCH_AGAIN_S):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch_all())
        if self._fetching is not None and self._look_up(kid) is None:
            await asyncio.shield(self._fetching)
        if self._fetched_at is None:
            raise StoreUnavailable(
                "the OpenID provider does not answer, so its tokens cannot be judged",
                fix="use a token of kvnet, or wait",
            )
        return self._look_up(kid)

    def _look_up(self, kid: str | None) -> Key | None:
        if kid is None:
            return next(iter(self._known.values())) if len(self._known) == 1 else None
        return self._known.get(kid)

    async def _fetch_all(self) -> None:
        """Keeps what it has if anything goes wrong."""
        try:
            document = _object(await self._fetch(self._issuer.rstrip("/") + DISCOVERY))
            if document.get("issuer") != self._issuer:
                raise Invalid(f"it says that it is {shown(str(document.get('issuer')))}")
            place = str(document.get("jwks_uri"))
            require_safe_url(place, "jwks_uri")
            self._known = dict(_keys(_object(await self._fetch(place))))
            self._fetched_at = self._monotonic()
        except (KvnetError, OSError, ValueError, TimeoutError) as error:
            facts = {"issuer": self._issuer, "detail": str(error)[:200] or type(error).__name__}
            log.warning("oidc-keys-not-fetched", extra={"facts": facts})


class Oidc:
    """As `controller.security.authentication.Verifier` asks."""

    def __init__(
        self, settings: OidcSettings, fetch: Fetch, now: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._jwt = _library()
        self._settings = settings
        self._keys = Keys(settings.issuer, fetch, monotonic)
        self._now = now
        self._good: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def principal(self, text: str) -> Principal | None:
        """None: not good.

        Raises:
            Forbidden: good, and no rule gives it a role, or several give it different scopes.
            StoreUnavailable: as `Keys.get`.
        """
        digest = hashlib.sha256(text.encode()).digest()
        known = self._good.get(digest)
        if known is not None and self._now() < known[0]:
            return known[1]
        claims = await self._claims(text)
        if claims is None:
            return None
        found = self._of(claims)
        self._good[digest] = min(found.expires_at or 0.0, self._now() + REMEMBERED_S), found
        self._good.move_to_end(digest)
        if len(self._good) > MAX_REMEMBERED:
            self._good.popitem(last=False)
        return found

    async def _claims(self, text: str) -> Mapping[str, Any] | None:
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(text)
        except jwt.PyJWTError:
            return None
        kid, algorithm = header.get("kid"), header.get("alg")
        if "crit" in header or not isinstance(kid, str | None) or not isinstance(algorithm, str):
            return None
        if not any(algorithm in fitting for fitting in FITTING.values()):
            return None
        key = await self._keys.get(kid)
        if key is None or algorithm not in FITTING[key.kind] or (key.only_for and key.only_for != algorithm):
            return None
        try:
            claims: Mapping[str, Any] = jwt.decode(
                text,
                key.key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={"require": NEEDED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return claims if self._is_of_now(claims) else None

    def _is_of_now(self, claims: Mapping[str, Any]) -> bool:
        """By this controller's clock, which a test can set."""
        now = self._now()
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if not all(type(at) in (int, float) and abs(at) < 1e12 for at in times.values()):
            return False
        begins = max(times.get("nbf", 0), times["iat"])
        return bool(begins - LEEWAY_S <= now < times["exp"])

    def _of(self, claims: Mapping[str, Any]) -> Principal:
        name = "oidc:" + _ODD.sub("?", str(claims.get(self._settings.name_claim) or claims["sub"]))[:120]
        rule = _rule_for(name, [rule for rule in self._settings.rules if _has(claims, rule)])
        # Who it is by the issuer's word: what he calls himself, somebody else may as well.
        subject = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode()).hexdigest()[:16]
        return Principal(
            name,
            rule.role,
            scope=dict(rule.scope),
            limits=self._settings.limits,
            expires_at=float(claims["exp"]),
            via=Via.OIDC,
            subject=f"oidc:{subject}",
        )


def _rule_for(name: str, fitting: Sequence[Rule]) -> Rule:
    """The highest role; of those the widest scope, if it has all that the others have: nobody has several, as no token
    has, and which of them was meant is not ours to guess.

    Raises:
        Forbidden: there is none, or no one.
    """
    highest = min((rule.role for rule in fitting), key=ROLES.index, default=None)
    if highest is None:
        raise Forbidden(
            f"{name!r} has no role here",
            fix="ask the operator of this cluster for one (--oidc-role), or use a token",
        )
    those = [rule for rule in fitting if rule.role is highest]
    for rule in those:
        if all(set(rule.scope) <= set(other.scope) for other in those):
            return rule
    scopes = sorted({",".join(f"{key}={value}" for key, value in rule.scope) for rule in those})
    raise Forbidden(
        f"{name!r} is {highest.value} in networks with {'; and in those with '.join(scopes)}: several scopes, "
        "and a credential has one",
        fix="use a token for each ('kvnet token create NAME --scope LABEL=VALUE'), or ask the operator of this cluster "
        "for one rule (--oidc-role) of a label that all these networks bear",
        context={"role": highest.value, "scopes": scopes},
    )


def _has(claims: Mapping[str, Any], rule: Rule) -> bool:
    found: Any = claims.get(rule.claim)
    if found is None:
        found = claims
        for part in rule.claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if rule.claim in IN_ONE_STRING and isinstance(found, str):
        found = found.split(" ")
    values = found if isinstance(found, list) else [found]
    return any(isinstance(value, str) and value == rule.value for value in values) or any(
        value is True and rule.value == "true" for value in values
    )


class Key(NamedTuple):
    """`only_for`: a key that names its algorithm is for that alone."""

    key: Any
    kind: str
    only_for: str


def _keys(document: Mapping[str, Any]) -> Iterator[tuple[str, Key]]:
    """Those that sign, of two halves; whatever cannot be read is passed over."""
    jwt = _library()
    for number, plain in enumerate(list(document.get("keys") or ())[:MAX_KEYS]):
        if not isinstance(plain, dict) or plain.get("kty") not in FITTING or plain.get("use", "sig") != "sig":
            continue
        try:
            read = jwt.PyJWK(plain)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        name = plain.get("kid")
        key = Key(read.key, plain["kty"], str(plain.get("alg", "")))
        yield (name if isinstance(name, str) else f"\0{number}"), key


def _object(data: bytes) -> Mapping[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _library() -> Any:
    """Only here, and only where somebody asked for it."""
    try:
        import jwt
    except ImportError as error:
        raise Unfit("signing in with OpenID needs PyJWT", fix="pip install 'kvnet[oidc]'") from error
    return jwt

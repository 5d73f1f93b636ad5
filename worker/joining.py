"""Joins this host to a cluster: a join token becomes an identity, whose secrets are made here and stay here.

What is being asked for is noted before it is asked for: so that the same join token can be used again by whoever lost
the answer, and by nobody else. Runs in the command, not in the worker; the worker finds the identity when it starts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kvnet.client.cluster import Cluster
from kvnet.client.places import targets_of
from kvnet.errors import AlreadyJoined, ControllerUntrusted, Invalid, StateUnusable, UnexpectedAnswer
from kvnet.http import HttpClient, Lost, NotSent, Target
from kvnet.security import SECRET_BYTES, TokenText, hash_of, parse_token
from kvnet.tls import NO_TRUST, Trust, is_pinned, require_readable
from worker import identity
from worker.identity import About, Identity
from worker.keymaking import Request, make

ASK_S = 10.0
LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """
    Attributes:
        token: the join token's text.
        host: the name that is expected; "" = whatever the token says.
        trust: whom to believe, and an own certificate to show instead of one that the controller signs.
        pinned: sha256 of the CA's certificate; "" = not asked for.
    """

    controller: str
    token: str
    state_dir: Path
    host: str = ""
    trust: Trust = NO_TRUST
    pinned: str = ""
    replaces: bool = False


class _Pending(NamedTuple):
    secret: str
    asked: Request


async def join(wish: Wish, now: Callable[[], float]) -> Identity:
    """
    Raises:
        AlreadyJoined: this host has an identity, or the cluster has one for it.
        Invalid: no join token; or it is another host's.
        ControllerUntrusted, ControllerUnreachable
        KvnetError: what the controller says.
    """
    text = parse_token(wish.token.strip())
    if text is None:
        raise Invalid("this is no join token", fix="give it as 'kvnet host join-token' printed it")
    found = _present(wish)
    if found is not None and not wish.replaces:
        raise AlreadyJoined(
            f"this host has joined already, as {found.about.host!r} at {found.about.controller}",
            fix="nothing more is needed; --replace gives it a new identity in place of that",
        )
    _make_directory(wish.state_dir)
    ca = await _believed(wish)
    pending = _pending(wish, text)
    trust = Trust(_kept_ca(wish.state_dir, ca), wish.trust.certificate, wish.trust.key) if ca else wish.trust
    async with Cluster(wish.controller, trust=trust) as client:
        answer = await client.join(_body(wish, pending))
    return _saved(wish, pending, answer, ca, now())


def _present(wish: Wish) -> Identity | None:
    try:
        return identity.load(wish.state_dir)
    except StateUnusable:
        if wish.replaces:
            return None
        raise


def _body(wish: Wish, pending: _Pending) -> dict[str, Any]:
    body: dict[str, Any] = {"token": wish.token.strip(), "hash": hash_of(pending.secret), "replace": wish.replaces}
    if wish.host:
        body["host"] = wish.host
    # In clear, or with a certificate of one's own, another one would be of no use.
    if "https://" in wish.controller and not wish.trust.certificate:
        body["certificate_request"] = pending.asked.request
    return body


def _saved(wish: Wish, pending: _Pending, answer: dict[str, Any], ca: str, now: float) -> Identity:
    try:
        text = TokenText(answer["id"], pending.secret)
        host, certificate, until = answer["host"], answer["certificate"] or "", answer["expires_at"] or 0.0
    except KeyError as error:
        raise UnexpectedAnswer(f"the controller's answer has no {error}", fix="compare 'kvnet version'") from error
    key = pending.asked.key if certificate else ""
    if wish.trust.certificate:
        certificate, key = _text_of(wish.trust.certificate), _text_of(wish.trust.key)
    about = About(host, wish.controller, now if until else 0.0, float(until))
    files = {identity.TOKEN: str(text), identity.KEY: key, identity.CERTIFICATE: certificate, identity.CA: ca}
    made = identity.save(wish.state_dir, about, files)
    for name in (identity.PENDING, f"{identity.PENDING}.ca"):
        (wish.state_dir / name).unlink(missing_ok=True)
    return made


async def _believed(wish: Wish) -> str:
    """The CA's certificate, to be kept; "" where this machine trusts the controller anyway."""
    if wish.trust.ca:
        return _text_of(wish.trust.ca)
    if not wish.pinned:
        return ""
    targets, prefix = targets_of(wish.controller)
    if any(one.tls is None for one in targets):
        raise Invalid("--ca-fingerprint is about TLS", fix="write the controller's address with https://")
    pem = await _shown_ca(targets, prefix)
    if not is_pinned(pem, wish.pinned):
        found = hashlib.sha256(_der(pem)).hexdigest()
        raise ControllerUntrusted(
            f"the CA of {wish.controller} is sha256:{found}, not the one that was named",
            fix="compare with 'kvnet ca show' where the CA is; if they differ, somebody is in between",
        )
    return pem


async def _shown_ca(targets: tuple[Target, ...], prefix: str) -> str:
    """Nothing of this is believed before its fingerprint is compared, and nothing secret is sent."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    asked = tuple(Target(one.authority, one.host, one.port, tls=blind) for one in targets)
    client = HttpClient(asked, {"accept": "application/json"}, longest_body=LONGEST)
    try:
        reply = await client.request("GET", f"{prefix}/v1/ca", b"", ASK_S)
        pem = json.loads(reply.body)["certificate"] if reply.status == 200 else None
    except (NotSent, Lost) as error:
        raise Cluster(",".join(f"https://{one.authority}" for one in targets)).unreachable(error) from error
    except (ValueError, KeyError, TypeError):
        pem = None
    finally:
        await client.close()
    if not isinstance(pem, str):
        raise ControllerUntrusted(
            "the controller shows no CA of its own", fix="name the file of its CA with --ca-file instead"
        )
    return pem


def _text_of(path: str) -> str:
    require_readable(path, "the certificate")
    return Path(path).read_text(encoding="ascii", errors="replace")


def _der(pem: str) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(pem.strip())
    except ValueError:
        return b""


def _pending(wish: Wish, text: TokenText) -> _Pending:
    """The secret and the key for this join token: those of an attempt before, if there was one."""
    place = wish.state_dir / identity.PENDING
    try:
        noted = json.loads(place.read_bytes())
        if noted["id"] == text.id:
            return _Pending(noted["secret"], Request(noted["request"], noted["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = _Pending(secrets.token_urlsafe(SECRET_BYTES), make(None))
    note = {"id": text.id, "secret": made.secret, "request": made.asked.request, "key": made.asked.key}
    _write(place, json.dumps(note))
    return made


def _kept_ca(state_dir: Path, pem: str) -> str:
    place = state_dir / f"{identity.PENDING}.ca"
    _write(place, pem)
    return str(place)


def _make_directory(state_dir: Path) -> None:
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnusable(f"{state_dir} cannot be made: {error.strerror}", fix="name another --state-dir") from error


def _write(place: Path, text: str) -> None:
    try:
        identity.write(place, text)
    except OSError as error:
        raise StateUnusable(f"{place} cannot be written: {error.strerror}", fix="look at --state-dir") from error

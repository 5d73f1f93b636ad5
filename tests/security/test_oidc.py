"""Signed identities of a provider: what is refused, when keys are fetched, and who somebody is then."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller.security.fetching import fetch
from controller.security.oidc import FETCH_AGAIN_S, KEPT_S, Oidc
from controller.security.oidc_settings import USUAL_LIMITS, OidcSettings, Rule, parse_limits, parse_rule
from controller.security.principal import Principal, Via
from controller.server import Listening, ServerSettings, serve
from controller.settings import Settings
from kvnet.errors import Forbidden, Invalid, StoreUnavailable
from kvnet.security import Role
from tests.api.under_test import DEADLINE_S, problem_of
from tests.security.admitted import ADMIN, bearer

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
RULES = (
    Rule("groups", "admins", Role.ADMIN),
    Rule("realm_access.roles", "operators", Role.OPERATOR),
    Rule("email_verified", "true", Role.VIEWER),
)


@dataclass
class Provider:
    """Over real HTTP, on loopback. `asked`: the paths, in order."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    claims_to_be: str = ""
    elsewhere: str = ""

    def answer(self, path: str) -> bytes | None:
        self.asked.append(path)
        if self.broken:
            return None
        if path.endswith("openid-configuration"):
            place = self.elsewhere or f"{self.url}/keys"
            return json.dumps({"issuer": self.claims_to_be or self.url, "jwks_uri": place}).encode()
        return json.dumps({"keys": self.keys}).encode()


@contextlib.contextmanager
def provided() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = provider.answer(self.path)
            self.send_response(200 if body is not None else 500)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_port}"
    provider.keys = [jwk("rsa", RSA), jwk("ec", EC), jwk("ed", ED)]
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def jwk(kid: str, private: Any, **more: Any) -> dict[str, Any]:
    algorithms: list[tuple[type[Any], Any]] = [
        (rsa.RSAPrivateKey, jwt.algorithms.RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, jwt.algorithms.ECAlgorithm),
        (ed25519.Ed25519PrivateKey, jwt.algorithms.OKPAlgorithm),
    ]
    kind = next(algorithm for of, algorithm in algorithms if isinstance(private, of))
    return {**json.loads(kind.to_jwk(private.public_key())), "kid": kid, "use": "sig", **more}


@dataclass
class Desk:
    """A verifier with a clock of its own."""

    provider: Provider
    now: float = NOW
    passed: float = 0.0

    def __post_init__(self) -> None:
        settings = OidcSettings(self.provider.url, "kvnet", RULES, "name")
        self.oidc = Oidc(settings, fetch, lambda: self.now, lambda: self.passed)

    def claims(self, **changed: Any) -> dict[str, Any]:
        claims = {
            "iss": self.provider.url,
            "aud": "kvnet",
            "sub": "42",
            "name": "alice",
            "iat": int(self.now),
            "exp": int(self.now) + 600,
            "groups": ["admins"],
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changed: Any) -> str:
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**changed), key, algorithm, headers)

    async def sees(self, text: str) -> Principal | None:
        return await self.oidc.principal(text)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with provided() as provider:
        yield Desk(provider)


async def test_somebody_whom_the_issuer_signed_is_who_he_is(desk: Desk) -> None:
    who = await desk.sees(desk.token())
    assert who is not None
    assert (who.name, who.role, who.via, who.token) == ("oidc:alice", Role.ADMIN, Via.OIDC, "")
    assert who.expires_at == NOW + 600


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(EC, "ES256", "ec"), (ED, "EdDSA", "ed"), (RSA, "PS256", "rsa")])
async def test_every_signature_of_two_keys_is_good(desk: Desk, key: Any, algorithm: str, kid: str) -> None:
    assert await desk.sees(desk.token(key, algorithm, kid)) is not None


WRONG: dict[str, Callable[[Desk], str]] = {
    "another issuer": lambda d: d.token(iss="https://evil.example"),
    "another audience": lambda d: d.token(aud="somebody-else"),
    "no audience": lambda d: d.token(aud=None),
    "no issuer": lambda d: d.token(iss=None),
    "no subject": lambda d: d.token(sub=None),
    "no end": lambda d: d.token(exp=None),
    "no beginning": lambda d: d.token(iat=None),
    "over": lambda d: d.token(exp=int(NOW) - 1),
    "over this moment": lambda d: d.token(exp=int(NOW)),
    "not yet": lambda d: d.token(nbf=int(NOW) + 3600),
    "made tomorrow": lambda d: d.token(iat=int(NOW) + 86_400),
    "an end that is no number": lambda d: d.token(exp="tomorrow"),
    "an end that is no time": lambda d: _signed(d, {**d.claims(), "exp": True}),
    "an end without end": lambda d: _signed(d, {**d.claims(), "exp": 1e300}),
    "another's signature": lambda d: d.token(OTHER_RSA),
    "another's signature under a name of his own": lambda d: d.token(OTHER_RSA, kid="mine"),
    "no signature": lambda d: _unsigned(d, "none"),
    "no signature, shouted": lambda d: _unsigned(d, "NONE"),
    "an empty signature": lambda d: d.token().rsplit(".", 1)[0] + ".",
    "the public key as a secret": lambda d: _confused(d),
    "the key as a shared secret in the header": lambda d: _unsigned(d, "HS256"),
    "an algorithm of another kind of key": lambda d: _swapped(d, "ES256"),
    "a changed body": lambda d: _tampered(d),
    "a critical header": lambda d: jwt.encode(d.claims(), RSA, "RS256", {"kid": "rsa", "crit": ["x"], "x": 1}),
    "a key of its own in the header": lambda d: jwt.encode(
        d.claims(), OTHER_RSA, "RS256", {"kid": "other", "jwk": jwk("other", OTHER_RSA), "jku": "http://127.0.0.1:1/"}
    ),
    "an id that is no text": lambda d: _with_header(d, {"alg": "RS256", "kid": ["rsa"]}),
    "no id where there are several": lambda d: d.token(kid=None),
    "nothing": lambda _: "..",
    "words": lambda _: "a.b.c",
    "five parts": lambda d: d.token() + ".x.y",
    "not even text": lambda _: "\udcff.\udcff.\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_it_is_not_good_with(desk: Desk, what: str) -> None:
    assert await desk.sees(WRONG[what](desk)) is None
    assert await desk.sees(desk.token()) is not None


async def test_clocks_may_differ_a_little_about_the_beginning_and_never_about_the_end(desk: Desk) -> None:
    assert await desk.sees(desk.token(nbf=int(NOW) + 20)) is not None
    assert await desk.sees(desk.token(exp=int(NOW) + 1)) is not None
    assert await desk.sees(desk.token(exp=int(NOW) - 5)) is None


async def test_what_was_good_is_not_when_its_time_is_over(desk: Desk) -> None:
    text = desk.token(exp=int(NOW) + 60)
    assert await desk.sees(text) is not None
    desk.now += 61
    assert await desk.sees(text) is None


async def test_a_storm_of_unknown_keys_asks_the_issuer_once_a_minute(desk: Desk) -> None:
    assert await desk.sees(desk.token()) is not None
    desk.passed += FETCH_AGAIN_S
    desk.provider.asked.clear()
    storm = [desk.sees(desk.token(OTHER_RSA, kid=f"k{i}")) for i in range(200)]
    assert set(await asyncio.gather(*storm)) == {None}
    assert len(desk.provider.asked) == 2
    assert await desk.sees(desk.token(OTHER_RSA, kid="later")) is None
    assert len(desk.provider.asked) == 2


async def test_a_key_that_is_new_is_known_within_a_minute_and_one_taken_back_within_an_hour(desk: Desk) -> None:
    assert await desk.sees(desk.token()) is not None
    desk.provider.keys = [jwk("new", OTHER_RSA)]
    assert await desk.sees(desk.token(OTHER_RSA, kid="new")) is None
    desk.passed += FETCH_AGAIN_S
    assert await desk.sees(desk.token(OTHER_RSA, kid="new")) is not None
    assert await desk.sees(desk.token(sub="43")) is None


async def test_a_key_that_is_taken_back_goes_without_anybody_asking_for_another(desk: Desk) -> None:
    assert await desk.sees(desk.token()) is not None
    desk.provider.keys = [jwk("ec", EC)]
    desk.passed += KEPT_S
    await desk.sees(desk.token(sub="43"))  # the one that makes it look
    others = (desk.token(sub=str(number)) for number in itertools.count(44))  # what was good is remembered
    async with asyncio.timeout(DEADLINE_S):
        while await desk.sees(next(others)) is not None:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)


async def test_while_the_issuer_is_away_known_keys_are_good_and_without_any_nobody_is_judged(desk: Desk) -> None:
    assert await desk.sees(desk.token()) is not None
    desk.provider.broken = True
    desk.passed += KEPT_S + 1
    assert await desk.sees(desk.token(sub="43")) is not None
    fresh = Desk(desk.provider)
    with pytest.raises(StoreUnavailable):
        await fresh.sees(fresh.token())


async def test_who_answers_for_another_issuer_is_not_believed(desk: Desk) -> None:
    desk.provider.claims_to_be = "https://another.example"
    with pytest.raises(StoreUnavailable):
        await desk.sees(desk.token())


@pytest.mark.parametrize("place", ["http://198.51.100.7/keys", "file:///etc/passwd", "ftp://127.0.0.1/keys"])
async def test_keys_are_not_fetched_from_where_others_could_put_theirs(desk: Desk, place: str) -> None:
    desk.provider.elsewhere = place
    with pytest.raises(StoreUnavailable):
        await desk.sees(desk.token())


async def test_keys_that_are_not_for_signatures_of_two_keys_are_passed_over(desk: Desk) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    desk.provider.keys = [
        {"kty": "oct", "kid": "rsa", "k": secret},
        jwk("enc", OTHER_RSA, use="enc"),
        {"kty": "RSA", "kid": "broken", "n": "?", "e": "AQAB"},
        "not an object",  # type: ignore[list-item]
        jwk("ps", RSA, alg="PS256"),
    ]
    assert await desk.sees(_confused(desk, b"s" * 32)) is None
    assert await desk.sees(desk.token(OTHER_RSA, kid="enc")) is None
    assert await desk.sees(desk.token(kid="ps")) is None
    assert await desk.sees(desk.token(algorithm="PS256", kid="ps")) is not None


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["admins", "others"]}, Role.ADMIN),
        ({"groups": "admins"}, Role.ADMIN),
        ({"groups": None, "realm_access": {"roles": ["operators"]}}, Role.OPERATOR),
        ({"groups": ["others"], "email_verified": True, "realm_access": {"roles": ["operators"]}}, Role.OPERATOR),
        ({"groups": {"admins": True}, "email_verified": True}, Role.VIEWER),
    ],
)
async def test_the_highest_role_of_the_rules_that_fit_counts(desk: Desk, claims: dict[str, Any], role: Role) -> None:
    who = await desk.sees(desk.token(**claims))
    assert who is not None
    assert who.role is role


async def test_a_rule_may_give_a_role_in_some_networks_only(desk: Desk) -> None:
    rules = [parse_rule(text) for text in SCOPED]
    oidc = Oidc(OidcSettings(desk.provider.url, "kvnet", tuple(rules)), fetch, lambda: desk.now, lambda: desk.passed)

    async def scope_of(*groups: str) -> tuple[Role, dict[str, str]]:
        who = await oidc.principal(desk.token(groups=list(groups)))
        assert who is not None
        return who.role, dict(who.scope)

    assert await scope_of("red") == (Role.OPERATOR, {"team": "red"})
    assert await scope_of("both") == (Role.VIEWER, {"team": "red", "tier": "dev"})
    assert await scope_of("both", "red") == (Role.OPERATOR, {"team": "red"}), "the highest role counts"
    assert await scope_of("red", "all") == (Role.OPERATOR, {}), "none is more than some"
    assert await scope_of("red", "blue", "all") == (Role.OPERATOR, {})
    assert await scope_of("red-dev", "red") == (Role.OPERATOR, {"team": "red"}), "the wider one has all of the other"
    assert await scope_of("red", "crimson") == (Role.OPERATOR, {"team": "red"})
    with pytest.raises(Forbidden) as refusal:
        await scope_of("red", "blue")
    assert "operator in networks with team=blue; and in those with team=red" in refusal.value.detail
    assert "kvnet token create" in refusal.value.fix
    with pytest.raises(Forbidden):
        await scope_of("red-dev", "blue", "both")


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"scope": "openid net:write"}, Role.OPERATOR),
        ({"scope": ["openid", "net:write"]}, Role.OPERATOR),
        ({"scp": "net:admin openid"}, Role.ADMIN),
        ({"groups": "openid net:write"}, None),
        ({"scope": "openid net:writer"}, None),
        ({"scope": "openid,net:write"}, None),
        ({"scope": {"net:write": True}}, None),
    ],
)
async def test_a_scope_of_an_issuer_may_be_one_of_several_in_a_string(
    desk: Desk, claims: dict[str, Any], role: Role | None
) -> None:
    rules = [parse_rule(f"{claim}=net:write:operator") for claim in ("scope", "groups")] + [
        parse_rule("scp=net:admin:admin")
    ]
    oidc = Oidc(OidcSettings(desk.provider.url, "kvnet", tuple(rules)), fetch, lambda: desk.now, lambda: desk.passed)
    token = desk.token(**{"groups": None, **claims})
    if role is None:
        with pytest.raises(Forbidden):
            await oidc.principal(token)
        return
    who = await oidc.principal(token)
    assert who is not None
    assert who.role is role


SCOPED = (
    "groups=red:operator@team=red",
    "groups=blue:operator@team=blue",
    "groups=both:viewer@team=red,tier=dev",
    "groups=red-dev:operator@tier=dev,team=red",
    "groups=crimson:operator@team=red",
    "groups=all:operator",
)


async def test_each_of_an_issuer_has_limits_and_may_take_another_name_but_not_anothers(desk: Desk) -> None:
    alice, renamed = await desk.sees(desk.token()), await desk.sees(desk.token(name="bob"))
    other = await desk.sees(desk.token(sub="43"))
    assert alice is not None
    assert renamed is not None
    assert other is not None
    assert alice.limits == USUAL_LIMITS
    assert alice.account == renamed.account != other.account
    assert alice.account.startswith("oidc:")


def test_limits_are_named_one_by_one() -> None:
    found = parse_limits(["networks=3", "rate=2.5", "streams=any"])
    assert (found.networks, found.endpoints, found.rate, found.streams) == (3, None, 2.5, None)
    assert parse_limits([]) == USUAL_LIMITS


@pytest.mark.parametrize(
    "text", ["", "networks", "networks=", "networks=-1", "networks=1.5", "rate=0", "cats=1", "x=any"]
)
def test_a_limit_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_limits([text])


async def test_who_has_no_role_is_known_and_may_nothing(desk: Desk) -> None:
    with pytest.raises(Forbidden):
        await desk.sees(desk.token(groups=["admin", "admins2", "", 7, None]))


async def test_a_name_cannot_pass_for_another_line_or_another_kind_of_caller(desk: Desk) -> None:
    who = await desk.sees(desk.token(name='host:h1\n"x'))
    assert who is not None
    assert who.name == "oidc:host:h1??x"


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a=b", "a=b:god", "a=b:host", "=b:admin", "a=:admin", "a:admin"),
        *("a=b:admin@", "a=b:viewer@team", "a=b:viewer@team=", "a=b:viewer@=red", "a=b:viewer@team=red,"),
        *("a=b:viewer@team=red,team=blue", "a=b:viewer@,", "a=b:viewer@team=red,x"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_rule(text)


@pytest.mark.parametrize("text", ["sub=h1:host", "sub=h1:host:h1", "groups=nodes:host@rack=1", "a=b:join"])
def test_nobody_of_an_issuers_is_a_host(text: str) -> None:
    with pytest.raises(Invalid, match="host") as refusal:
        parse_rule(text)
    assert "kvnet worker join" in refusal.value.fix


def test_a_rule_may_have_colons_in_it() -> None:
    assert parse_rule("https://example.com/roles=a:b:viewer") == Rule("https://example.com/roles", "a:b", Role.VIEWER)


@pytest.mark.parametrize(
    "arguments",
    [("http://example.com", "a", RULES), ("https://x", "", RULES), ("https://x", "a", ()), ("", "a", RULES)],
)
def test_settings_that_let_the_wrong_ones_in_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(Invalid):
        OidcSettings(*arguments)


@contextlib.asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[httpx2.AsyncClient]:
    ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(serve(settings, ready=ready.set_result, stop=stop))
    try:
        async with asyncio.timeout(DEADLINE_S):
            url = (await ready).url
        async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            yield client
    finally:
        stop.set()
        await server


async def test_the_api_takes_both_kinds_of_tokens() -> None:
    with provided() as provider:
        settings = OidcSettings(provider.url, "kvnet", RULES, "name")
        wanted = ServerSettings("memory://", "127.0.0.1:0", cluster=Settings(), oidc=settings)
        async with serving(wanted) as client:
            root = (await client.post("/v1/tokens", json=ADMIN)).json()["token"]
            desk = Desk(provider, now=time.time())
            viewer = desk.token(groups=None, email_verified=True)
            who = (await client.get("/v1/whoami", headers=bearer(viewer))).json()
            assert (who["name"], who["role"], who["via"]) == ("oidc:alice", "viewer", "oidc")
            refused = await client.post("/v1/networks", json={"name": "n"}, headers=bearer(viewer))
            problem_of(refused, 403, "forbidden")
            admin = desk.token()
            assert (await client.post("/v1/networks", json={"name": "n"}, headers=bearer(admin))).status_code == 201
            item = (await client.get("/v1/journal?network=n", headers=bearer(root))).json()["items"][0]
            assert item["actor"] == "oidc:alice"
            nobody = desk.token(groups=["others"])
            problem_of(await client.get("/v1/networks", headers=bearer(nobody)), 403, "forbidden")
            problem_of(await client.get("/v1/networks", headers=bearer("a.b.c")), 401, "unauthenticated")
            assert (await client.get("/v1/authentication", headers=bearer(root))).json()["oidc"] is True


async def test_what_somebody_of_an_issuer_makes_counts_for_him_and_is_of_his_networks() -> None:
    with provided() as provider:
        rules = tuple(parse_rule(text) for text in SCOPED)
        settings = OidcSettings(
            provider.url, "kvnet", rules, "name", parse_limits(["networks=2", "rate=4", "streams=1"])
        )
        wanted = ServerSettings("memory://", "127.0.0.1:0", cluster=Settings(), oidc=settings)
        async with serving(wanted) as client:
            root = bearer((await client.post("/v1/tokens", json=ADMIN)).json()["token"])
            desk = Desk(provider, now=time.time())
            red, blue = (bearer(desk.token(sub=team, groups=[team])) for team in ("red", "blue"))
            again = bearer(desk.token(sub="red", name="somebody else", groups=["red"]))
            await client.post("/v1/networks", json={"name": "blues", "labels": {"team": "blue"}}, headers=root)

            made = await client.post("/v1/networks", json={"name": "n1"}, headers=red)
            assert made.json()["labels"] == {"team": "red"}
            problem_of(await client.get("/v1/networks/blues", headers=red), 404, "not-found")
            assert (await client.post("/v1/networks", json={"name": "n2"}, headers=again)).status_code == 201
            problem_of(await client.post("/v1/networks", json={"name": "n3"}, headers=again), 409, "quota-exceeded")
            assert (await client.post("/v1/networks", json={"name": "n3"}, headers=blue)).status_code == 201
            of_two = bearer(desk.token(sub="purple", groups=["red", "blue"]))
            told = problem_of(await client.get("/v1/networks", headers=of_two), 403, "forbidden")
            assert told["scopes"] == ["team=blue", "team=red"]

            answers = [await client.get("/v1/networks", headers=one) for one in (red, again) * 5]
            assert 429 in {one.status_code for one in answers}, "one rate for all his tokens"
            assert (await client.get("/v1/networks", headers=blue)).status_code == 200


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _signed(desk: Desk, claims: dict[str, Any]) -> str:
    head = f"{_part({'alg': 'RS256', 'kid': 'rsa'})}.{_part(claims)}"
    return f"{head}.{_raw(jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(head.encode(), RSA))}"


def _raw(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unsigned(desk: Desk, algorithm: str) -> str:
    return f"{_part({'alg': algorithm, 'kid': 'rsa'})}.{_part(desk.claims())}."


def _with_header(desk: Desk, header: dict[str, Any]) -> str:
    return f"{_part(header)}.{_part(desk.claims())}.{desk.token().rsplit('.', 1)[1]}"


def _confused(desk: Desk, secret: bytes | None = None) -> str:
    """Signed with what everybody knows, as if it were a secret."""
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{_part(desk.claims())}"
    return f"{head}.{_raw(hmac.new(secret or public, head.encode(), hashlib.sha256).digest())}"


def _swapped(desk: Desk, algorithm: str) -> str:
    return _with_header(desk, {"alg": algorithm, "kid": "rsa"})


def _tampered(desk: Desk) -> str:
    head, _, signature = desk.token(groups=["others"]).split(".")
    return f"{head}.{_part(desk.claims())}.{signature}"

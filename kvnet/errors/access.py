"""Who may come in, on which connection, and how much of it."""

from __future__ import annotations

from kvnet.errors.base import Conflicting, KvnetError
from kvnet.errors.hosts import ControllerUnreachable


class ControllerUntrusted(ControllerUnreachable):
    """There is a controller, but no safe way to it: its certificate, ours, or TLS on one side only."""

    code = "controller-untrusted"
    title = "There is no safe connection to the controller"


class CertificateUnusable(KvnetError):
    """A certificate or a key in a file cannot be used. Nothing was started or sent."""

    code = "certificate-unusable"
    status = 422
    title = "A certificate cannot be used"


class AlreadyJoined(Conflicting):
    """This host has an identity, or the cluster has one for it."""

    code = "already-joined"
    title = "The host has joined already"


class Unauthenticated(KvnetError):
    """No credential, or one that is not good: unknown, expired, removed. Never says which."""

    code = "unauthenticated"
    status = 401
    title = "Who asks is not known"


class Forbidden(KvnetError):
    """Who asks is known, and may not do this."""

    code = "forbidden"
    status = 403
    title = "The credential does not allow it"


class AuthenticationRequired(KvnetError):
    """The cluster has no credentials yet, so only those on the controller's own machine are heard."""

    code = "authentication-required"
    status = 403
    title = "Only the controller's own machine may ask"


class RateLimited(KvnetError):
    """More requests than the token may make; `retry_after_s` says when the next one is welcome."""

    code = "rate-limited"
    status = 429
    title = "Too many requests"


class TooManyFailures(KvnetError):
    """Wrong credentials from one address, again and again. Good ones from there are still served."""

    code = "too-many-failures"
    status = 429
    title = "Too many wrong credentials"


class TooManyStreams(KvnetError):
    """So many event streams and watches are open that there is no room for one more."""

    code = "too-many-streams"
    status = 429
    title = "Too many open streams"


class QuotaExceeded(Conflicting):
    """The token owns as much as it may."""

    code = "quota-exceeded"
    title = "The token's quota is used up"


class LastAdmin(Conflicting):
    """Without it nobody could make tokens any more."""

    code = "last-admin"
    title = "It is the last token of an admin"


class InsecureListen(KvnetError):
    """A controller would be open to everybody who reaches its address."""

    code = "insecure-listen"
    status = 422
    title = "The address is open to all"

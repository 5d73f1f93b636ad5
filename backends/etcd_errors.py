"""What etcd's errors mean for a request: was it done, may it be asked elsewhere, is there anything left to try.

Pure. Errors are told apart by gRPC's status and, where etcd uses one status for several things, by its words (rpctypes
of etcd 3.4 and 3.5). Whatever is not known here counts as lost: only what surely was not written may be called so.
"""

from __future__ import annotations

from enum import Enum, auto

from backends.store import Broken, Compacted, Refused, SessionLost, StoreError, TooLarge


class Verdict(Enum):
    ELSEWHERE = auto()  # surely not done here; another member may serve
    LOST = auto()  # it may be done or not
    LOGIN = auto()  # surely not done: the token is not, or no longer, good
    FINAL = auto()  # surely not done, and no member will


class LoginRefused(Refused):
    """Not known here; as opposed to known, and not allowed."""


class Failed(Exception):
    """A call that brought no answer, in gRPC's words. Never leaves the adapter."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.verdict = _judge(code, details)


NOT_SENT = "NOT_SENT"  # our own, beside gRPC's codes: no connection, so nothing can have been done

# Said before anything is proposed. "leader changed" and "request timed out" are not: they come while one waits for the
# outcome. A dropped proposal was dropped by the member itself, as it knew no leader to hand it to.
_ELSEWHERE = (
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
    "not supported for learner",
    "raft proposal dropped",
)
# The last two come when the order is applied, by all members alike, and instead of applying it.
_LOGIN = (
    "invalid auth token",
    "user name is empty",
    "revision in header is old",
    "revision of auth store is old",
)
_LEASE = "requested lease not found"
_TOO_LARGE = ("request is too large", "too many operations", "message larger than max")
_NO_SPACE = "database space exceeded"
_CORRUPT = "corrupt cluster"
_FINAL_CODES = {"PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"}


def _says(details: str, *words: str) -> bool:
    return any(word in details for word in words)


def _judge(code: str, details: str) -> Verdict:
    if _says(details, *_LOGIN) or code == "UNAUTHENTICATED":
        return Verdict.LOGIN
    if code == NOT_SENT or _says(details, *_ELSEWHERE):
        return Verdict.ELSEWHERE
    if code in _FINAL_CODES or _says(details, _LEASE, _NO_SPACE, _CORRUPT, *_TOO_LARGE):
        return Verdict.FINAL
    # Only a server that does not know the method says so, and it did nothing.
    return Verdict.FINAL if code == "UNIMPLEMENTED" else Verdict.LOST


def refusal(failed: Failed) -> StoreError:
    """What the caller is told when it is final (or when a new login did not help)."""
    details = failed.details
    if _says(details, _LEASE):
        return SessionLost("etcd does not know the session's lease: it has expired or was revoked")
    if _says(details, "has been compacted"):
        return Compacted(f"etcd keeps no history that old: {details}")
    if _says(details, *_TOO_LARGE):
        return TooLarge(f"etcd refuses the size: {details} (--max-request-bytes and --max-txn-ops set its limits)")
    if _says(details, _NO_SPACE):
        return Broken(
            "etcd is full and refuses to write until an operator makes room: 'etcdctl compact REVISION', "
            "'etcdctl defrag' on every member, 'etcdctl alarm disarm'; then let it compact by itself "
            "(--auto-compaction-retention) or give it more (--quota-backend-bytes)"
        )
    if _says(details, _CORRUPT):
        return Broken(
            "etcd found its members' data to differ and serves nothing: restore or replace the member that "
            "'etcdctl alarm list' names, then 'etcdctl alarm disarm'"
        )
    if failed.verdict is Verdict.LOGIN or is_bad_login(failed):
        return LoginRefused(f"etcd does not accept the login: {details}")
    if failed.code == "PERMISSION_DENIED":
        return Refused("etcd does not let this user read and write under the root: permission denied")
    if failed.code == "UNIMPLEMENTED":
        return Broken(f"what answers is not an etcd with the v3 protocol: {details}")
    return Broken(f"etcd refuses the request: {details} ({failed.code})")


def is_bad_login(failed: Failed) -> bool:
    return _says(failed.details, "authentication failed")


def is_without_users(failed: Failed) -> bool:
    return _says(failed.details, "authentication is not enabled")

"""What can be wrong with the store, its data, and a backup of it."""

from __future__ import annotations

from kvnet.errors.base import Conflicting, KvnetError


class StoreUnavailable(KvnetError):
    code = "store-unavailable"
    status = 503
    title = "The store does not answer"


class OutcomeUnknown(KvnetError):
    """The store's answer was lost: it may or may not have been written. Repeat with the same id."""

    code = "outcome-unknown"
    status = 504
    title = "The outcome is not known"


class StoreBroken(KvnetError):
    """The store answers, but cannot serve: read-only, full, not a database, wrong schema, another cluster's data."""

    code = "store-broken"
    status = 503
    title = "The store cannot be used"


class StoreLoginRefused(KvnetError):
    """The store does not know these credentials: wrong password, unknown user, expired or unknown token."""

    code = "store-login-refused"
    status = 503
    title = "The store does not accept the credentials"


class StoreForbidden(KvnetError):
    """The store knows who asks and does not let them read and write under the root."""

    code = "store-forbidden"
    status = 503
    title = "The store does not allow it"


class StoreUntrusted(KvnetError):
    """TLS: the store's certificate is not signed by the CA given, or names another host, or ours is not accepted."""

    code = "store-untrusted"
    status = 503
    title = "The store cannot be trusted"


class StoreForeign(KvnetError):
    """Under the root there is something, and it is not kvnet's. Nothing is written beside it."""

    code = "store-foreign"
    status = 503
    title = "The root holds somebody else's data"


class StoreTooNew(KvnetError):
    """Written by a newer kvnet."""

    code = "store-too-new"
    status = 503
    title = "The store was written by a newer kvnet"


class UpgradeUnfinished(KvnetError):
    """Somebody who takes part does not speak the new schema yet."""

    code = "upgrade-unfinished"
    status = 409
    title = "The upgrade is not finished everywhere"


class AnotherCluster(KvnetError):
    """The store answers, and is not the one that was meant."""

    code = "another-cluster"
    status = 503
    title = "The store is another cluster's"


class StoreWentBack(KvnetError):
    """The store is older than what was seen of it: wiped, or restored from a backup. Refused until confirmed."""

    code = "store-went-back"
    status = 503
    title = "The store went back in time"


class StoreNotEmpty(Conflicting):
    """A restore's target holds something already. Nothing was changed."""

    code = "store-not-empty"
    title = "The store is not empty"


class BackupUnusable(KvnetError):
    """A backup that is damaged, cut off, not a backup, or of a newer kvnet. Nothing was changed."""

    code = "backup-unusable"
    title = "The backup cannot be used"

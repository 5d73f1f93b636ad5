"""What can be wrong with the programs of kvnet, and with the machine that they run on."""

from __future__ import annotations

from kvnet.errors.base import Conflicting, KvnetError, NotFound


class ControllerUnreachable(KvnetError):
    code = "controller-unreachable"
    status = 503
    title = "The controller does not answer"


class WorkerUnreachable(KvnetError):
    code = "worker-unreachable"
    status = 503
    title = "The worker does not answer"


class HostSilent(KvnetError):
    """A host's worker was asked something and did not answer; `context` says whether it is alive and since when."""

    code = "host-silent"
    status = 504
    title = "The host does not answer"


class HostBusy(KvnetError):
    """A host answers only so many questions of a kind at once, and others have been waiting for their turn."""

    code = "host-busy"
    status = 503
    title = "The host is busy"


class ProbeBusy(Conflicting):
    """A host takes part in one connectivity test at a time."""

    code = "probe-busy"
    title = "A connectivity test is under way"


class AnswerTooLarge(KvnetError):
    """What a worker would answer does not fit into one value of the store."""

    code = "answer-too-large"
    status = 507
    title = "The answer is too large"


class HostFenced(KvnetError):
    """This host lost its session: it claims nothing until it has seen the current state again."""

    code = "host-fenced"
    status = 503
    title = "This host is fenced"


class ForeignObject(Conflicting):
    """A kernel object that is not ours holds a name or VNI that we need. It is never touched."""

    code = "foreign-object"
    title = "Something that is not kvnet's is in the way"


class MissingCapability(KvnetError):
    code = "missing-capability"
    status = 403
    title = "The process may not do this"


class KernelRefused(KvnetError):
    """The kernel refused an operation on our own objects; the detail carries its words."""

    code = "kernel-refused"
    title = "The kernel refused"


class NamespaceNotFound(NotFound):
    code = "namespace-not-found"
    title = "There is no such network namespace"


class PortInUse(KvnetError):
    """The listen address is taken by another process."""

    code = "listen-address-in-use"
    status = 409
    title = "The listen address is in use"


class StateUnusable(KvnetError):
    """The worker's state directory cannot be used: not writable, full, or another worker has it."""

    code = "state-unusable"
    title = "The state directory cannot be used"


class Unfit(KvnetError):
    """This machine lacks something that is needed; says what and how to get it."""

    code = "unfit-machine"
    title = "This machine lacks something"

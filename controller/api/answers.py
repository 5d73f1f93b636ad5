"""What clients get, as documented in OpenAPI. `render` builds it; the tests hold each answer against these.

Requests are answered without going through these models (that would validate our own output at every request).
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldProblem(Answer):
    pointer: str = Field(description="JSON pointer into the body; or /query/..., /path/..., /header/...")
    detail: str


class Problem(BaseModel):
    """RFC 9457. `code` is stable; `fix` says what to do next. More members give machine-readable facts."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/subnet-taken"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The request's id, as in X-Request-ID.")
    code: str
    fix: str
    errors: list[FieldProblem]


class Page(Answer, Generic[T]):
    """`next_cursor` null: that was the last page. `revision`: the store revision the page is from."""

    items: list[T]
    next_cursor: str | None
    revision: int


class SubnetOut(Answer):
    cidr: str
    gateway: str | None
    range: str | None
    reserved: dict[str, str]
    used: int = Field(description="Addresses that automatic choice cannot have: endpoints, reservations, cooling down.")
    size: int


class ConditionOut(Answer):
    """`ready` and `converged` are always there, in this order; then one `problem` for each that a host reports."""

    type: Literal["ready", "converged", "problem"]
    status: Literal["true", "false", "unknown"] = Field(
        description="unknown: nobody can tell, because a host is down or the store is not believed."
    )
    reason: str = Field(description="A stable code, such as `applied`, `behind`, `host-down`, `foreign-object`.")
    detail: str
    host: str | None = Field(description="The host that reports the problem.")
    since: str | None = Field(description="When it became so; null if nobody knows.")


class ConditionsOut(Answer):
    conditions: list[ConditionOut]


class HostProblemOut(Answer):
    code: str
    detail: str
    since: str


class HostConvergenceOut(Answer):
    host: str
    alive: bool
    wanted: int
    applied: int = Field(description="Every change of the network up to this revision is in the host's kernel.")
    lag_revisions: int
    lag_seconds: float | None = Field(
        description="Since the oldest change that it has not applied was made; 0 if there is none, "
        "null if nobody knows any more."
    )
    problems: list[HostProblemOut]


class ConvergenceOut(Answer):
    network: str
    version: int = Field(description="The newest change of the network.")
    converged: bool = Field(description="No living host is behind it.")
    hosts: list[HostConvergenceOut]


class PeerOut(Answer):
    id: str
    name: str


class DockerOut(Answer):
    """What only Docker knows of the network, word for word."""

    options: dict[str, str]
    ipam_options: dict[str, str]
    labels: dict[str, str]
    attachable: bool
    ipv6: bool
    host: str = Field(description="Where it was made.")


class HoldOut(Answer):
    id: str
    cidr: str
    host: str
    since: str
    until: str = Field(description="It is kept so long at least.")
    forced: str = Field(description="Why an overlap with what a host uses was accepted; empty: there is none.")
    version: int


class AppliedOut(Answer):
    """Whether the hosts have the newest change of it; of what was waited for, whether they have that."""

    converged: bool
    waiting_for: list[str] = Field(description="Living hosts of the network that have not applied it yet.")
    away: list[str] = Field(description="Hosts of the network that are down: they are not waited for.")


class NetworkOut(Answer):
    id: str
    name: str
    driver: str
    vni: int | None
    subnets: list[SubnetOut]
    internal: bool
    ipv6: bool
    mtu: int | None
    flood: bool
    icc: bool = Field(description="Whether its endpoints can reach each other.")
    masquerade: bool = Field(description="Whether traffic leaves with its host's address.")
    bridge_name: str | None = Field(description="Of the Linux bridge; null: kvnet's own name.")
    interface_prefix: str | None
    host_binding: str | None
    uplink: str | None
    uplink_mode: str | None = Field(description="Only of transparent networks.")
    shim: bool
    block_prefix_length: int | None
    block_prefix_length6: int | None
    cross_segment: str | None = Field(description="Only of routed networks.")
    peers: list[PeerOut] = Field(description="Networks that it may talk to.")
    docker: DockerOut | None = Field(description="null: it was not made through Docker.")
    options: dict[str, str]
    labels: dict[str, str]
    state: str = Field(description="active, naming (its name is still to come; it takes no endpoints), or deleting.")
    created_at: str
    version: int
    endpoints: int
    hosts: list[str]
    used: int
    size: int
    applied: AppliedOut
    status: ConditionsOut


class PruneOut(Answer):
    deleted: list[NetworkOut] = Field(description="With dry_run: what would be deleted.")
    dry_run: bool
    applied: AppliedOut | None = Field(description="With `wait`: which hosts still have something of them.")


class PortOut(Answer):
    """One published port; ranges are laid out."""

    port: int
    protocol: str
    host_port: int | None
    host_address: str | None = Field(description="null: all addresses of the host.")


class WaitedOut(Answer):
    """What is answered to a deletion with `wait`: whether any host still has it."""

    applied: AppliedOut


class EndpointOut(Answer):
    id: str
    network: str
    network_name: str
    host: str
    name: str
    hostname: str
    aliases: list[str]
    address: str | None
    address6: str | None
    addresses: list[str]
    mac: str
    ports: list[PortOut]
    gateway_priority: int = Field(description="Of a workload's networks the one with the highest is its way out.")
    labels: dict[str, str]
    created_at: str
    version: int
    applied: AppliedOut
    status: ConditionsOut


class BulkItem(Answer):
    """Status 201 or 200 with the endpoint, or the problem that this item met."""

    status: int
    endpoint: EndpointOut | None = None
    problem: Problem | None = None


class BulkOut(Answer):
    items: list[BulkItem]


class HostOut(Answer):
    name: str
    underlay: str
    mtu: int
    abilities: list[str]
    alive: bool
    state: str = Field(description="alive or down; leaving or evicted while it is being removed.")
    last_seen: str | None
    down_since: str | None = Field(description="When it was first seen absent; null while it is alive.")
    incarnation: str = Field(description="The run of the worker that is alive, or was seen last.")
    endpoints: int
    networks: list[str]
    kernel: str
    kvnet_version: str = Field(description="What the worker runs.")
    version: int
    lag_revisions: int = Field(description="How far the host is behind, in the network where it is furthest behind.")
    status: ConditionsOut


class PoolOut(Answer):
    name: str
    cidr: str
    prefix_length: int
    reserved: list[str]
    subnets_used: int
    subnets_total: int
    largest_free: str | None
    version: int


class ReservationOut(Answer):
    network: str
    name: str
    address: str
    since: str
    fixed: bool = Field(description="Part of the network's specification: it goes with the network only.")
    version: int


class BlockOut(Answer):
    """A host's part of a routed network."""

    cidr: str
    host: str
    state: str = Field(description="active; or releasing: empty, it is given back.")
    since: str
    used: int
    size: int


class HeldPortOut(Answer):
    """A host port and the endpoint that has it."""

    host: str
    protocol: str
    host_port: int
    host_address: str | None = Field(description="null: on all addresses of the host.")
    network: str
    network_name: str
    endpoint: str
    endpoint_name: str
    port: int | None = Field(description="The workload's port.")


class HeldPortsOut(Answer):
    items: list[HeldPortOut]
    revision: int


class NetworkUseOut(Answer):
    id: str
    name: str
    endpoints: int
    used: int
    size: int
    subnets: list[SubnetUseOut]
    blocks: list[BlockOut] = Field(description="Of a routed network: which host has which part.")


class SubnetUseOut(Answer):
    cidr: str
    used: int
    size: int


class IpamOut(Answer):
    pools: list[PoolOut]
    networks: list[NetworkUseOut]
    revision: int


class AddressHolderOut(Answer):
    address: str
    kind: str = Field(
        description="free, endpoint, reservation, tombstone (cooling down), gateway, network, broadcast, host"
    )
    network: str
    network_name: str
    holder: str
    since: str | None
    until: str | None
    endpoint: EndpointOut | None
    block: BlockOut | None = Field(description="Of a routed network: the host's block that it is in.")


class AddressOut(Answer):
    address: str
    holders: list[AddressHolderOut]


class SubnetHolderOut(Answer):
    cidr: str
    kind: str = Field(description="network, hold, pool, host, block, reservation")
    holder: str
    detail: str


class SubnetLookupOut(Answer):
    cidr: str
    holders: list[SubnetHolderOut]


class FindingOut(Answer):
    kind: str = Field(description="double, leak, orphan or damage")
    invariant: str
    detail: str
    keys: list[str]
    fix: str = Field(description="What a repair does, or, where there is none, what a person can do.")
    repairable: bool


class CheckOut(Answer):
    ok: bool
    findings: list[FindingOut]
    repaired: list[FindingOut]
    changed: list[FindingOut] = Field(description="Not repaired: what they rest on changed meanwhile.")
    revision: int


class TroubleOut(Answer):
    kind: str = Field(description="went-back, wiped, another-cluster, or too-new")
    detail: str
    fix: str
    revision_before: int = Field(description="What the store had reached; 0 if only hosts or the sentinel tell of it.")
    revision_now: int = Field(description="What it fell to.")


class AcceptedOut(Answer):
    id: str
    cluster: str
    at: str
    actor: str
    revision_before: int
    revision_now: int


class StoreStateOut(Answer):
    cluster: str = Field(description="The id that the store has now; empty if it has none.")
    revision: int
    networks: int
    endpoints: int
    hosts: int
    trouble: TroubleOut | None = Field(description="Why nothing is written; null: the store is believed.")
    accepted: AcceptedOut | None = Field(description="The last acceptance, as it stands in the store.")


class SpeakerOut(Answer):
    name: str
    version: str = Field(description="Of kvnet; empty if it is not known.")
    schema_: int | None = Field(alias="schema", description="The newest that it speaks; null: it is down.")


class UpgradeOut(Answer):
    level: int = Field(description="The schema that everybody writes.")
    newest: int = Field(description="The newest that the controller that answers speaks.")
    finished: bool
    controllers: list[SpeakerOut]
    hosts: list[SpeakerOut]
    behind: list[str] = Field(description="Who lives and does not speak the newest yet.")


class StatusWarningOut(Answer):
    code: Literal["tokens-in-clear", "certificate-expires", "values-unreadable", "audit-broken"]
    detail: str
    fix: str


class StatusOut(Answer):
    cluster: str
    store: str
    revision: int
    leader: str | None
    is_leader: bool
    replica: str
    stale_since: str | None
    trouble: TroubleOut | None = Field(description="Why nothing is written; null: all is well.")
    warnings: list[StatusWarningOut] = Field(description="What works, and should not stay so.")
    networks: int
    endpoints: int
    hosts: int
    hosts_alive: int
    pools: int
    version: str


class VersionOut(Answer):
    version: str
    api: str


class HealthCheck(Answer):
    name: str
    ok: bool
    detail: str


class HealthOut(Answer):
    status: Literal["ok", "not-ready"]
    checks: list[HealthCheck] = []


class ProblemPage(Answer):
    code: str
    status: int
    title: str
    meaning: str


class EventOut(Answer):
    """The `data` of an SSE event of type `change`."""

    revision: int
    kind: str
    at: str
    key: str
    network: str
    actor: str
    claimed: str | None = Field(description="Who an authenticated caller said that it asked for.")
    request_id: str
    source: str
    before: Any
    after: Any

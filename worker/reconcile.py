"""When to look, what to plan, and what came of it: the loop that makes the kernel match the store.

Level-triggered: every pass compares what should be with what is; a trigger only says where to look, never what to do.
One pass at a time. A store change is planned against what the last pass left, without reading the kernel; a hint of
drift, a failure and the periodic full pass read it first. What fails is tried again with growing pauses, and the other
networks go on meanwhile. Never removes anything while the source does not know all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from datapath.conditions import findings
from datapath.desired import Memo, desired, host_state, network_of_device
from datapath.names import DNS_BRIDGE
from datapath.objects import Failure, Hint, HostState, Kernel, Macvlan, Operation, Veth
from datapath.plan import Plan
from kvnet.errors import KvnetError, StoreUnavailable
from kvnet.model import Condition, NetworkObserved
from worker.agenda import Agenda, Work
from worker.chronicle import Chronicle
from worker.drafts import Draft, draft_of, in_the_way, problems_of, refused, words
from worker.known import HostPart, Known, Statistics
from worker.log import Log
from worker.observing import Observer, Sight
from worker.passes import additions_only, by_network, changes_something, host_left, split_failures, walled
from worker.pausing import Pause
from worker.ports import Backoff, Time
from worker.settings import Timing
from worker.source import Mode, Source
from worker.triggers import gap_s, named, networks_of, rest_s
from worker.waiting import Waiting

# Above this many endpoints a pass takes 5 ms and more, and is computed in a thread: the loop stays responsive.
LARGE_VIEW = 4000
# After a pass as short as this there is nothing to gather for whoever waits already.
SHORT_PASS_S = 0.02
PEER_PATIENCE_S = 0.5
# Told a moment later than what they belong to: until then it cannot be claimed that all is built.
COUNTED = ("links", "addresses", "routes", "neighbours", "vteps", "ports", "containers")
LATE = frozenset({"peer-unknown", "block-missing"})


class Reconciler:
    """`on_report` is called after every pass that changed what there is to report, `on_underlay` when the host's own
    addresses or routes changed. `concerns`: what else is wrong that a network suffers from.
    `chronicle`: tells what came of passes. `pause`: while it lasts, nobody looks for drift."""

    def __init__(
        self,
        kernel: Kernel,
        source: Source,
        *,
        time: Time,
        timing: Timing,
        log: Log,
        on_report: Callable[[], None],
        on_underlay: Callable[[], None] = lambda: None,
        concerns: Callable[[str], Sequence[Condition]] = lambda _: (),
        chronicle: Chronicle | None = None,
        pause: Pause | None = None,
    ) -> None:
        self.statistics = Statistics()
        self._kernel = kernel
        self._source = source
        self._observer = Observer(kernel, source, time)
        self._time = time
        self._timing = timing
        self._log = log
        self._on_report = on_report
        self._on_underlay = on_underlay
        self._concerns = concerns
        self._chronicle = chronicle or Chronicle(log, time)
        self._pause = pause
        self._agenda = Agenda()
        self._wake = asyncio.Event()
        self._networks: dict[str, Known] = {}
        self._waiting = Waiting()
        self._number = 0
        self._full_passes = 0
        self._general: tuple[Condition, ...] = ()
        self._memo = Memo()
        self._backoff = self._new_backoff()
        self._host = HostPart(self._new_backoff())

    # triggers

    def touch(
        self, networks: Collection[str], *, read: bool = False, after_s: float = 0.0, at_once: bool = False
    ) -> None:
        """`at_once`: do not gather what else may come; nor where somebody waits for it."""
        at = self._time.monotonic() + after_s
        for network_id in networks:
            known = self._networks.get(network_id)
            rests = known is not None and not read and not at_once and not self._waiting.is_awaited(network_id)
            self._agenda.add([network_id], max(at, known.rests_until) if rests and known else at, read=read)
        self._wake.set()

    def touch_everything(self, after_s: float = 0.0) -> None:
        self._agenda.add_everything(self._time.monotonic() + after_s)
        self._wake.set()

    def start_over(self) -> None:
        """The store's revisions begin anew, so nothing is known to be applied."""
        for known in self._networks.values():
            known.version = 0
        self.touch_everything()

    def hint(self, hint: Hint) -> None:
        """Somebody, perhaps we, changed something of ours."""
        if hint.underlay or hint.is_everything:
            self._on_underlay()
        if hint.is_everything:
            self._chronicle.events_lost()
            self.touch_everything()
            return
        if self._paused_s:
            return  # all of it is looked at when the pause is over
        now = self._time.monotonic()
        for network_id in self._hinted(hint):
            known = self._networks.get(network_id)
            at = max(now, known.read_at + gap_s(known.repairs, known.look_s)) if known else now
            self._agenda.add([network_id], at, read=True, hinted=True)
        if hint.firewall or hint.host or DNS_BRIDGE in hint.devices:
            self._agenda.add_host(
                max(now, self._host.read_at + gap_s(self._host.repairs, self._host.look_s)), hinted=True
            )
        self._wake.set()

    def _hinted(self, hint: Hint) -> set[str]:
        found = networks_of(hint, self._networks)
        unknown = set()
        for device in hint.devices:
            network_id = network_of_device(device) or self._source.network_of_interface(device)
            if network_id:
                found.add(network_id)
            else:
                unknown.add(device)
        return found | named(unknown, self._networks)

    def paused_or_not(self) -> None:
        """A pause of repairs began, or was ended: when none is left, everything is looked at."""
        if self._paused_s:
            self._agenda.drop_hints()  # of what was done before: a look that is still to come would mend the new, too
        self.touch_everything(self._paused_s)
        self._on_report()

    @property
    def _paused_s(self) -> float:
        return self._pause.left_s if self._pause is not None else 0.0

    @property
    def number(self) -> int:
        """Of the pass that began last."""
        return self._number

    async def until(self, network_id: str, version: int, *, after: int = -1) -> None:
        """Return when everything of the network up to `version` is in the kernel. The caller bounds the wait.

        `after`: not by what was there before: only a pass counts that began later than the one of this number.

        Raises:
            KernelRefused, ForeignObject: a pass that knew it failed, even after the kernel was read again.
            StoreBroken: the store is in doubt.
        """
        if after < 0 and self.is_up_to(network_id, version):
            return
        if network_id not in self._networks:  # nothing had to be built of it yet: a pass has to say so again
            self.touch([network_id])
        await self._waiting.until(network_id, version, after)

    # what is known

    @property
    def has_seen_everything(self) -> bool:
        return self._full_passes > 0

    def observed(self) -> dict[str, NetworkObserved]:
        """Of every network that this host has something of: the version that is in its kernel, and what is wrong.

        Also of one that it is no longer part of, until nothing of it is left.
        """
        doubt = self._source.doubt()
        problems = ([] if doubt is None else [(doubt.code, doubt.detail)]) + list(self._host.problems)
        general = self._general = self._dated(self._general, problems)
        return {
            id_: NetworkObserved(known.version, (*general, *self._concerns(id_), *known.conditions), known.applied_at)
            for id_, known in self._networks.items()
        }

    def objects(self) -> dict[str, int]:
        """How many things of each kind the last passes left in the kernel."""
        found: dict[str, int] = {}
        for known in self._networks.values():
            state = known.actual or known.desired
            for kind in COUNTED:
                found[kind] = found.get(kind, 0) + len(getattr(state, kind))
        return found

    def is_up_to(self, network_id: str, version: int) -> bool:
        """Whether everything of the network up to `version` is in the kernel."""
        known = self._networks.get(network_id)
        return known is not None and known.version >= version and known.actual is not None

    def has_link(self, network_id: str, name: str) -> bool:
        """Whether the last pass over the network left this link there."""
        known = self._networks.get(network_id)
        return known is not None and known.actual is not None and name in known.actual.links

    def problems(self, network_id: str) -> list[str]:
        known = self._networks.get(network_id)
        return [condition.detail for condition in known.conditions] if known else []

    async def preview(self) -> Plan:
        """What a full pass would do now.

        Raises:
            StoreUnavailable: nothing is known yet.
            StoreBroken: what is known is not believed.
        """
        mode = self._source.mode()
        if mode is Mode.BLIND:
            doubt = self._source.doubt()
            if doubt is not None:
                raise doubt.error()
            raise StoreUnavailable("this worker has not heard from the store yet", fix="see 'kvnet status'")
        sight = await self._observer.everything(self._networks)
        networks = self._networks.keys() if mode is Mode.DOUBT else None
        return (await self._drafted(networks, sight, mode, memo=None)).plan

    # the loop

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_hints())
            self.touch_everything()
            while True:
                work = self._agenda.take(self._time.monotonic())
                if work is None:
                    await self._until_due()
                else:
                    await self._do(work)

    async def _follow_hints(self) -> None:
        async for hint in self._kernel.hints():
            self.hint(hint)

    async def _until_due(self) -> None:
        due = self._agenda.next_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self._time.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def _do(self, work: Work) -> None:
        began = self._time.monotonic()
        self._number += 1
        mode = self._source.mode()
        if mode is Mode.BLIND:
            return  # whoever opens our eyes asks for a look at everything
        if work.everything and self._paused_s and self.has_seen_everything:
            self.touch_everything(self._paused_s)
            self._on_report()
            work = Work(networks=work.networks)
        self._begin_telling(work)
        kind = "full" if work.everything else "part"
        try:
            if work.everything:
                await self._look_at_everything(mode)
            else:
                await self._look_at(work, mode)
        except KvnetError as error:
            self._log.warning("pass-failed", detail=error.detail, code=error.code)
            self._chronicle.end(kind, error)
            self._fail_waiting(work.networks, error)
            self._postpone(work)
            return
        self._chronicle.end(kind)
        self._backoff.reset()
        self.statistics.passes += 1
        took_s = self._time.monotonic() - began
        self.statistics.last_pass_ms = took_s * 1000
        self._rest(work.networks, rest_s(took_s))
        if work.everything:
            self.statistics.last_full_pass_ms = self.statistics.last_pass_ms
            self.statistics.last_full_pass_at = self._time.now()

    def _begin_telling(self, work: Work) -> None:
        looked = {*self._networks, ""} if work.everything else {*work.read, *([""] if work.host else [])}
        self._chronicle.begin(looked, is_settled=self.has_seen_everything)

    def _rest(self, networks: Collection[str], pause_s: float) -> None:
        until = self._time.monotonic() + pause_s
        for network_id in networks:
            known = self._networks.get(network_id)
            if known is not None:
                known.rests_until = until
        is_short = pause_s <= SHORT_PASS_S
        self._agenda.put_off([n for n in networks if not (is_short and self._waiting.is_awaited(n))], until)

    async def _look_at_everything(self, mode: Mode) -> None:
        self._agenda.add_everything(self._time.monotonic() + self._time.jittered(self._timing.full_pass_s))
        sight = await self._observer.everything(self._networks)
        self._host.read_at = self._time.monotonic()
        networks = self._networks.keys() if mode is Mode.DOUBT else None
        draft = await self._drafted(networks, sight, mode, memo=self._memo)
        failed = await self._carry_out(draft, mode, is_last_try=False)
        if mode is Mode.LIVE:
            self._full_passes += 1
            held = self._source.held()
            self._note_held(held)
            for network_id in sorted(self._networks.keys() - draft.desired.keys() - held):
                self._forget(network_id)
        if failed:
            self.touch(failed - {""} or draft.desired.keys(), read=True)
        self._on_report()

    async def _look_at(self, work: Work, mode: Mode) -> None:
        held = self._source.held() if mode is Mode.LIVE else frozenset()
        self._note_held(held)
        chosen = work.networks - held
        if mode is Mode.DOUBT:
            self._fail_doubted(work.networks)
            chosen &= self._networks.keys()
        if chosen or work.host:
            began = self._time.monotonic()
            sight = await self._sight(chosen, work.read, must_read_host=work.host)
            draft = await self._drafted(chosen, sight, mode, memo=self._memo)
            self._note_look(work, self._time.monotonic() - began)
            failed = await self._carry_out(draft, mode, is_last_try=False)
            self._count_repairs(work, draft)
            if failed:
                sight = await self._sight(chosen, chosen, must_read_host=True)
                draft = await self._drafted(chosen, sight, mode, memo=self._memo)
                await self._carry_out(draft, mode, is_last_try=True)
        self._on_report()

    def _note_look(self, work: Work, took_s: float) -> None:
        """By the share of each; where not all was read, it was quicker than a look is."""
        if work.host:
            self._host.look_s = took_s
        for network_id in work.read if work.read == work.networks else ():
            known = self._networks.get(network_id)
            if known is not None:
                known.look_s = took_s / len(work.read)

    def _count_repairs(self, work: Work, draft: Draft) -> None:
        """What looks for hints found to mend; a look that finds nothing ends the row."""
        if not work.read and not work.host:
            return
        changes = draft.changes
        for network_id in work.read:
            known = self._networks.get(network_id)
            if known is not None:
                known.repairs.note(changes.get(network_id, ()))
        if work.host:
            self._host.repairs.note(changes.get("", ()))

    # the steps of a pass

    async def _sight(self, chosen: Collection[str], read: Collection[str], *, must_read_host: bool) -> Sight:
        return await self._observer.part(chosen, read, self._networks, self._host, must_read_host=must_read_host)

    async def _drafted(self, networks: Collection[str] | None, sight: Sight, mode: Mode, *, memo: Memo | None) -> Draft:
        """`networks`: None = all of them. `memo`: what passes remember between them; None for whoever runs beside
        them, for it serves one at a time."""
        actual, scopes, number = replace(sight.actual, uplinks=sight.uplinks), sight.scopes, self._number
        held = self._source.held() if networks is None and mode is Mode.LIVE else frozenset()
        if mode is Mode.DOUBT:
            kept = {id_: self._networks[id_].desired for id_ in sorted(networks or ()) if id_ in self._networks}
            host = self._host.wanted or HostState(firewall=actual.firewall)
            return draft_of(kept, dict.fromkeys(kept, 0), scopes, host, actual, held, (), number)
        # The firewall must not name a foreign device; whether one is in the way is seen only in a network's own pass.
        blocked = set() if networks is None else self._blocked() - set(networks)
        view = replace(self._source.view(networks), uplinks=sight.uplinks)
        outline = replace(self._source.outline(blocked), uplinks=sight.uplinks, dockers=actual.dockers)
        # Told of while the kernel was read: nobody looked for what they stand on, so they are for the next pass.
        late = view.networks.keys() - sight.seen
        held = held | late if networks is None else held
        chosen = view.networks.keys() - held if networks is None else set(networks) - late
        if late and memo is not None:
            self.touch(late, read=True)
        versions = {id_: self._source.version(id_) for id_ in sorted(chosen)}  # the same order in every run
        if memo is not None:
            self._chronicle.planned(chosen)

        def compute() -> Draft:
            states = {id_: desired(view, id_, memo) for id_ in versions}
            found = tuple(finding for id_ in versions for finding in findings(view, id_, memo))
            return draft_of(states, versions, scopes, host_state(outline), actual, held, found, number)

        if sum(len(of_network) for of_network in view.endpoints.values()) > LARGE_VIEW:
            return await asyncio.to_thread(compute)
        return compute()

    async def _carry_out(self, draft: Draft, mode: Mode, *, is_last_try: bool) -> set[str]:
        """Returns the networks in which something failed ("": the whole host); a look at the kernel may mend it."""
        operations: list[Operation] = [op for op in draft.plan.operations if not self._source.is_leaving(op)]
        if mode is not Mode.LIVE:
            operations = additions_only(operations, draft.actual.firewall)
        else:
            doubt = await self._source.confirm(operations)
            if doubt is not None:
                raise doubt.error()
        failures = await self._kernel.apply(operations) if operations else []
        self.statistics.operations += sum(map(changes_something, operations))
        self.statistics.failures += len(failures)
        self._chronicle.carried_out(draft, operations, failures)
        hard, soft = split_failures(failures)
        failed = by_network(hard, draft.owners) if hard else {}
        self._note_host(draft, operations, soft, is_broken="" in failed)
        for network_id in draft.desired:
            self._note(draft, network_id, mode, failed, is_last_try=is_last_try)
        return set(failed)

    def _note_host(
        self, draft: Draft, operations: Collection[Operation], soft: Collection[Failure], *, is_broken: bool
    ) -> None:
        """What failed without leaving a network unbuilt is tried again by itself, with growing pauses."""
        host = self._host
        self._chronicle.compare("", host.wanted, draft.host)
        host.wanted = draft.host
        blocked = [conflict for conflict in draft.plan.conflicts if conflict.device == DNS_BRIDGE]
        is_done = not (is_broken or soft or blocked)
        host.actual = host_left(operations, draft.host, draft.actual) if is_done else None
        told = problems_of(blocked, (), soft)
        host.problems = (*told, *walled(draft.host, draft.actual))
        if not soft:
            host.backoff.reset()
            return
        for code, detail in told:
            self._log.warning(code, detail=detail)
        self._agenda.add_host(self._time.monotonic() + host.backoff.next(self._time))

    def _blocked(self) -> set[str]:
        return {id_ for id_, known in self._networks.items() if known.is_blocked}

    def _note(
        self, draft: Draft, network_id: str, mode: Mode, failed: Mapping[str, list[Failure]], *, is_last_try: bool
    ) -> None:
        known = self._networks.get(network_id)
        self._chronicle.compare(network_id, known.desired if known is not None else None, draft.desired[network_id])
        if known is None:
            known = self._networks[network_id] = Known(draft.desired[network_id], self._new_backoff())
        known.read_at = self._time.monotonic()
        known.scope = draft.scopes.get(network_id, known.scope)
        known.uplinks = {name: draft.actual.uplinks[name] for name in known.scope.uplinks & draft.actual.uplinks.keys()}
        failures = failed.get(network_id, []) + failed.get("", [])
        conflicts = [c for c in draft.plan.conflicts if c.network == network_id]
        problems = problems_of(conflicts, [f for f in draft.findings if f.network == network_id], failures)
        problems = [*problems, *self._unreadable(network_id)]
        known.conditions = self._dated(known.conditions, problems)
        known.desired = draft.desired[network_id]
        known.is_blocked = any(not isinstance(known.desired.links.get(c.device), Veth | Macvlan) for c in conflicts)
        if mode is not Mode.LIVE:
            known.actual = None
        elif failures:
            known.actual = None
            if is_last_try:
                self._log.warning("kernel-refused", network=network_id, detail=words(failures[0]))
                self._waiting.fail(network_id, draft.versions[network_id], draft.number, refused(failures))
                self.touch([network_id], read=True, after_s=known.backoff.next(self._time))
            return
        else:
            known.actual = draft.expected(network_id)
            known.backoff.reset()
        if conflicts:
            self._waiting.fail(network_id, draft.versions[network_id], draft.number, in_the_way(conflicts))
            self.touch([network_id], read=True, after_s=known.backoff.next(self._time))
            return
        if mode is Mode.LIVE:
            self._chronicle.arrived(network_id, known.version, draft.versions[network_id])
        if mode is Mode.LIVE and not self._waits_for_peers(known, network_id, problems):
            if draft.versions[network_id] > known.version:
                known.version, known.applied_at = draft.versions[network_id], self._time.now()
            self._waiting.arrive(network_id, known.version, draft.number)
            if known.desired == HostState() and not problems:
                self._forget(network_id)

    def _waits_for_peers(self, known: Known, network_id: str, problems: Collection[tuple[str, str]]) -> bool:
        """An endpoint may be told a moment before its host: until then it cannot be claimed that all is built."""
        if not any(code in LATE for code, _ in problems):
            known.unknown_since = None
            return False
        now = self._time.monotonic()
        known.unknown_since = now if known.unknown_since is None else known.unknown_since
        left_s = known.unknown_since + PEER_PATIENCE_S - now
        if left_s > 0:
            self.touch([network_id], after_s=left_s)
        return left_s > 0

    def _new_backoff(self) -> Backoff:
        return Backoff(self._timing.retry_s, self._timing.retry_max_s)

    # waiting for it

    def _fail_waiting(self, networks: Collection[str], error: KvnetError) -> None:
        for network_id in networks:
            self._waiting.fail(network_id, self._source.version(network_id), self._number, error)

    def _fail_doubted(self, networks: Collection[str]) -> None:
        doubt = self._source.doubt()
        if doubt is not None:
            self._fail_waiting(networks, doubt.error())

    def _postpone(self, work: Work) -> None:
        pause = self._backoff.next(self._time)
        if work.everything:
            self.touch_everything(pause)
        else:
            self.touch(work.networks, read=True, after_s=pause)
            if work.host:
                self._agenda.add_host(self._time.monotonic() + pause)

    def _note_held(self, held: Collection[str]) -> None:
        for network_id in held:
            problems = self._unreadable(network_id)
            if problems and network_id in self._networks:
                known = self._networks[network_id]
                known.conditions = self._dated(known.conditions, problems)

    def _unreadable(self, network_id: str) -> list[tuple[str, str]]:
        return [("store-broken", f"{name}: {detail}") for name, detail in self._source.broken(network_id).items()]

    def _forget(self, network_id: str) -> None:
        self._chronicle.forget(network_id)
        if self._networks.pop(network_id, None) is not None and network_id not in self._source.present():
            self._log.info("network-gone", network=network_id)

    def _dated(self, before: Collection[Condition], problems: Collection[tuple[str, str]]) -> tuple[Condition, ...]:
        since = {(c.code, c.detail): c.since for c in before}
        now = self._time.now()
        return tuple(Condition(code, detail, since.get((code, detail), now)) for code, detail in problems)

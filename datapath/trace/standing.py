"""The hop that is a host: is it there, does its worker answer and believe the store, how far has it come. Pure."""

from __future__ import annotations

from dataclasses import replace

from datapath.trace.hop import Draft, Hop, Side, Weight


def standing(side: Side, silence: str) -> Hop:
    """`silence`: why it did not answer; "" if it did, or was looked at in another way."""
    known = side.case.standing[side.host]
    draft = Draft(side, "worker", side.host)
    draft.expect("alive, and up to date")
    if known.record is None:
        reason = "the host has no record: it was removed, or its worker never registered it"
        fix = f"start its worker, or remove what is left there: kvnet endpoint ls -f host={side.host}"
        draft.differ("host-unknown", "host", "known", "unknown", reason, fix)
        return _told(draft, "unknown")
    sight = side.sight
    if not known.is_alive:
        seen = f", last seen {known.last_seen}" if known.last_seen else ""
        reason = f"its worker is down{seen}: nothing is repaired there, and no change is followed"
        fix = f"start it: kvnet worker on {side.host}"
        if sight is None:
            fix += f"; until then 'kvnet trace --here {side.host}', as root on that host, looks at its kernel"
        draft.differ("worker-dead", "worker", "alive", "down", reason, fix, Weight.NOTE)
        return _told(draft, f"down{seen}" + (", looked at without it" if sight is not None else ""))
    if silence or sight is None:
        reason = silence or "it did not answer"
        fix = (
            f"see its process and its log on {side.host}: it ended a moment ago, is stopped, hangs, or is cut off from "
        )
        fix += f"the store; meanwhile 'kvnet trace --here {side.host}', as root on that host, looks at its kernel"
        draft.differ("worker-silent", "worker", "answers", "silent", reason, fix, Weight.NOTE)
        return _told(draft, "alive, silent")
    _compare(draft, side)
    return _told(draft, draft.found[-1] if draft.found else "alive, and up to date")


def _compare(draft: Draft, side: Side) -> None:
    sight = side.sight
    if sight is None:
        return
    behind = [n for n in sight.networks if n.applied < side.case.wanted.get(n.id, 0)]
    there = {n.id for n in sight.networks}
    missing = [n.name for n in side.case.own_networks if n.id not in there and _should_be_there(side, n.id)]
    words = ["alive"] if sight.mode != "here" else []
    words += [f"{_name(side, network.id)} at revision {network.applied}" for network in sight.networks]
    for network in behind:
        wanted = side.case.wanted[network.id]
        name = _name(side, network.id)
        words.append(f"{name} has {wanted}")
        reason = f"{side.host} has not put everything of {name} into its kernel yet"
        fix = "wait a moment and trace again; if it stays so, see 'kvnet status' and the worker's log"
        what = f"version of {name}"
        draft.differ("behind", what, wanted, network.applied, reason, fix, Weight.NOTE)
    for name in missing:
        reason = f"{side.host} has an endpoint of {name}, and its worker does not take part in it"
        draft.differ("not-taking-part", "network", f"{name} there", "not there", reason, "see its worker's log")
    if sight.mode not in ("live", "here"):
        words.append(f"mode {sight.mode}")
        reason = sight.doubt or "it does not know, or not believe, what the store says"
        draft.differ("in-doubt", "mode", "live", sight.mode, reason, "see 'kvnet status' on that host", Weight.NOTE)
    if sight.is_fenced:
        words.append("fenced")
        reason = "it lost its session: it takes no new workloads until it has seen the current state again"
        draft.differ("host-fenced", "session", "held", "lost", reason, "see whether it reaches the store", Weight.NOTE)
    if sight.paused_s:
        words.append(f"repairs paused for {sight.paused_s:.0f} s more")
    draft.see(", ".join(words))


def _name(side: Side, network_id: str) -> str:
    network = side.case.networks.get(network_id)
    return network.name if network is not None else network_id


def _should_be_there(side: Side, network_id: str) -> bool:
    ends = (side.case.a, side.case.b)
    is_here = side.sight is not None and side.sight.mode == "here"
    return not is_here and any(end.host == side.host and end.network.id == network_id for end in ends)


def _told(draft: Draft, found: str) -> Hop:
    return replace(draft.hop(), is_known=True, found=found)

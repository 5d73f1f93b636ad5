"""Makes, changes and removes links: bridges, tunnels, shims, and the interfaces of workloads.

Two passes, because what stands on a link needs the index that the first one gave out. What is there already and ours is
brought to what is wanted; what is there and foreign is a failure. Deletes by a group that was made up for it: one by
one it costs 18 ms each, during which nobody on the host can change anything.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from datapath.objects import (
    BRIDGE_PREFIX,
    SHIM_PREFIX,
    VXLAN_PREFIX,
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Failure,
    Link,
    Macvlan,
    Shim,
    UpdateLink,
    Veth,
    Vxlan,
)
from worker.kernel import containers, macvlans, steady
from worker.kernel import messages as m
from worker.kernel.devices import Devices, Unusable, describe_foreign
from worker.kernel.dump import ALIAS, THROW_AWAY_GROUPS, Device
from worker.kernel.failures import Told, failure, told
from worker.kernel.netlink import Message, Netlink, Refusal
from worker.kernel.settle import hurry, until_it_works

# A bridge takes 18 ms to delete even in a group, and holds the kernel's one lock for it: a few at a time.
BRIDGES_PER_DELETION = 4
DELETIONS_PER_SEND = 512
Op = TypeVar("Op", CreateLink, UpdateLink, DeleteLink)


class Links:
    """Executes the link operations of one batch; `failures` collects what went wrong."""

    def __init__(self, rtnetlink: Netlink, devices: Devices, failures: list[Failure], rng: random.Random) -> None:
        self._rtnetlink = rtnetlink
        self._devices = devices
        self._failures = failures
        self._rng = rng
        self._taken: set[str] = set()  # bridges that are not ours after all: nothing of ours goes into them

    def create(self, operations: Sequence[CreateLink]) -> None:
        """All of one kind. Bridges must have been created before what is put into them."""
        if isinstance(operations[0].link, (Veth, Macvlan)):
            action = self._create_veth if isinstance(operations[0].link, Veth) else self._create_macvlan
            for operation in operations:
                self._tried(operation, action, operation)
            return
        wanted = list(self._messages(operations, lambda operation: [self._creation(operation.link)]))
        refused = self._send(wanted)
        self._devices.forget(*(operation.link.name for operation in operations))
        made: list[CreateLink] = []
        for operation, _ in wanted:
            refusal = refused.get(id(operation))
            if refusal is not None and not self._is_there(operation.link):
                self._fail(operation, self._refused_to_make(operation, refusal))
            else:
                made.append(operation)
        self._finish(made)

    def update(self, operations: Sequence[UpdateLink]) -> None:
        before = len(self._failures)
        for operation in operations:
            if operation.container is not None and isinstance(operation.link, (Veth, Macvlan)):
                self._tried(operation, self._resize, operation)
        failed = {id(refused.operation) for refused in self._failures[before:]}
        here = [op for op in operations if not isinstance(op.link, Macvlan) and id(op) not in failed]
        wanted = list(self._messages(here, lambda operation: self._changes(operation.link)))
        for operation, refusal in self._refused(wanted):
            otherwise = refusal.text or f"{operation.link.name} cannot be changed"
            self._fail(operation, told(operation, refusal.errno, refusal.text, otherwise))
        for operation, _ in wanted:
            hurry(self._rtnetlink, operation.link.name)
        self._devices.forget(*(operation.link.name for operation in operations))

    def delete(self, operations: Sequence[DeleteLink]) -> None:
        """What is gone already is no failure; what is not ours is left alone."""
        self._delete_inside([operation for operation in operations if isinstance(operation.link, Macvlan)])
        doomed: list[tuple[DeleteLink, Device]] = []
        for operation in operations:
            if isinstance(operation.link, Macvlan):
                continue
            found = self._devices.get(operation.link.name)
            if found is None:
                continue
            if found.is_ours:
                doomed.append((operation, found))
            else:
                self._fail(operation, Told(errno.EEXIST, describe_foreign(found)))
        bridges = [entry for entry in doomed if entry[1].kind == "bridge"]
        others = [entry for entry in doomed if entry[1].kind != "bridge"]
        for entries, size in ((others, DELETIONS_PER_SEND), (bridges, BRIDGES_PER_DELETION)):
            for start in range(0, len(entries), size):
                self._delete_together(entries[start : start + size])
        self._devices.forget(*(operation.link.name for operation in operations))

    def _delete_inside(self, operations: Sequence[DeleteLink]) -> None:
        """Macvlans, in their workloads' namespaces."""
        placed = [(operation, operation.container) for operation in operations if operation.container is not None]
        for operation in operations:
            if operation.container is None:
                words = f"{operation.link.name} cannot be deleted without its workload's namespace"
                self._fail(operation, Unusable(errno.EINVAL, words))
        for (operation, _), error in zip(placed, macvlans.delete([side for _, side in placed]), strict=True):
            if error is not None:
                self._fail(operation, error)

    def _delete_together(self, doomed: Sequence[tuple[DeleteLink, Device]]) -> None:
        if len(doomed) == 1:
            messages = [m.delete_link(doomed[0][1].index)]
        else:
            # One send: the kernel finishes it even if we are killed, so nothing stays behind in the made-up group.
            group = self._rng.choice(THROW_AWAY_GROUPS)
            messages = [m.set_link(found.index, group=group) for _, found in doomed]
            messages.append(m.delete_group(group))
        for refusal in self._rtnetlink.request(messages):
            if refusal.errno == errno.ENODEV:
                continue
            hit = doomed if refusal.place >= len(doomed) else doomed[refusal.place : refusal.place + 1]
            for operation, found in hit:
                self._fail(operation, Told(refusal.errno, refusal.text or f"{found.name} cannot be deleted"))

    def _creation(self, link: Link) -> Message:
        if isinstance(link, Bridge):
            return m.create_bridge(link)
        if isinstance(link, Vxlan):
            return m.create_vxlan(link, self._bridge(link))
        if isinstance(link, Shim):
            return m.create_shim(link, self._devices.uplink(link.uplink).index)
        raise Unusable(errno.EINVAL, f"{link.name} cannot be made without its workload's namespace")

    def _finish(self, made: Sequence[CreateLink]) -> None:
        """Second pass: what only an existing link takes. Port flags before `up`, so that nothing is learned or told."""

        def rest(operation: CreateLink) -> list[Message]:
            index = self._devices.ours(operation.link.name).index
            return [*self._changes(operation.link), m.set_link(index, alias=_alias(operation.link))]

        for operation, refusal in self._refused(list(self._messages(made, rest))):
            otherwise = refusal.text or f"{operation.link.name} was made, but not set up"
            self._fail(operation, told(operation, refusal.errno, refusal.text, otherwise))
        for operation in made:
            hurry(self._rtnetlink, operation.link.name)
            if isinstance(operation.link, Vxlan) and operation.link.bridge:
                hurry(self._rtnetlink, operation.link.bridge)
        self._devices.forget(*(operation.link.name for operation in made))

    def _create_veth(self, operation: CreateLink) -> None:
        link, side = operation.link, operation.container
        if not isinstance(link, Veth) or side is None:
            raise Unusable(errno.EINVAL, f"{link.name} cannot be made without its workload's namespace")
        bridge = self._bridge(link)
        with contextlib.ExitStack() as stack:
            namespace = None if side.is_handed_over else stack.enter_context(containers.opened(side.netns))
            if not self._adopt(link, side, namespace):
                refusal = self._rtnetlink.one(m.create_veth(link, bridge, side, namespace))
                self._devices.forget(link.name)
                if refusal is not None:
                    raise self._refused_to_make(operation, refusal)
            self._set_up_veth(operation, link, side, namespace)

    def _create_macvlan(self, operation: CreateLink) -> None:
        link, side = operation.link, operation.container
        if not isinstance(link, Macvlan) or side is None:
            raise Unusable(errno.EINVAL, f"{link.name} cannot be made without its workload's namespace")
        refusal = macvlans.create(self._rtnetlink, self._devices.uplink(link.uplink), side)
        if refusal is not None:
            raise self._refused_to_make(operation, refusal)

    def _set_up_veth(self, operation: CreateLink, link: Veth, side: ContainerSide, namespace: int | None) -> None:
        """All of it, or the interface goes again. One that is handed over works when its runtime brings it up."""
        index = self._devices.ours(link.name).index
        try:
            messages = [*self._changes(link), m.set_link(index, alias=_alias(link))]
            for refusal in self._rtnetlink.request(messages):
                raise told(operation, refusal.errno, refusal.text, refusal.text or f"{link.name} cannot be set up")
            if namespace is not None:
                containers.configure(side, namespace)
                for name in (link.name, link.bridge) if link.up and link.bridge else ():
                    until_it_works(self._rtnetlink, name)
        except OSError:
            self._rtnetlink.one(m.delete_link(index))
            raise
        finally:
            self._devices.forget(link.name)

    def _adopt(self, link: Veth, side: ContainerSide, namespace: int | None) -> bool:
        """Whether our interface is there already with its other half where it belongs; one that is not has to go.

        So has one that was left over from an earlier hand-over: nobody knows what was done to it.
        """
        found = self._devices.get(link.name)
        if found is None:
            return False
        ours = self._devices.ours(link.name)
        if namespace is not None and containers.is_peer_of(side, namespace, ours):
            return True
        self._rtnetlink.one(m.delete_link(ours.index))
        self._devices.forget(link.name)
        return False

    def _changes(self, link: Link) -> list[Message]:
        """What brings our existing link to `link`. Only differences that the kernel would act upon are left out."""
        found = self._devices.ours(link.name)
        if isinstance(link, Macvlan):
            return []
        wanted_mac = b"" if isinstance(link, Veth) or (isinstance(link, Vxlan) and link.bridge) else link.mac
        # Given again, even the same one costs a device all its neighbours.
        mac = wanted_mac if wanted_mac and wanted_mac != found.mac else None
        if isinstance(link, Shim):
            return [m.set_link(found.index, mtu=link.mtu, mac=mac, up=link.up)]
        restoring = steady.restoring(found.index, found.kind, found.fields, _alias(link))
        if isinstance(link, Bridge):
            return [*restoring, m.set_link(found.index, mtu=link.mtu, mac=mac, up=link.up)]
        messages = [*restoring, m.set_link(found.index, mtu=link.mtu, mac=mac, master=self._bridge(link))]
        if link.bridge and isinstance(link, Vxlan):
            flags = m.set_port(found.index, learning=link.learning, suppress=link.suppress, isolated=link.isolated)
            messages.append(flags)
        elif link.bridge:
            isolated, hairpin = link.isolated, isinstance(link, Veth) and link.hairpin
            messages.append(m.set_port(found.index, learning=True, suppress=False, isolated=isolated, hairpin=hairpin))
        messages.append(m.set_link(found.index, up=link.up))
        return messages

    def _resize(self, operation: UpdateLink) -> None:
        """The workload's half comes first: dying in between leaves the host's, which shows that there is work left."""
        link, side = operation.link, operation.container
        if side is None:
            return
        if isinstance(link, Macvlan):
            refusal = macvlans.resize(side)
        else:
            refusal = containers.resize(side, self._devices.ours(link.name))
        if refusal is not None:
            raise told(operation, refusal.errno, refusal.text, refusal.text or f"{link.name} cannot be resized")

    def _bridge(self, link: Vxlan | Veth) -> int:
        """The index of the link's bridge; 0 for none. Only a workload's interface goes into an operator's bridge."""
        if not link.bridge:
            return 0
        if isinstance(link, Vxlan) or link.bridge in self._taken:
            return self._devices.ours(link.bridge).index
        return self._devices.bridge(link.bridge).index

    def _is_there(self, link: Link) -> bool:
        """Whether what could not be created is what we want: ours, of that kind, and only its settings may differ."""
        found = self._devices.get(link.name)
        if found is None or not found.is_ours:
            return False
        if isinstance(link, Vxlan):
            return found.kind == "vxlan" and found.vni == link.vni
        if isinstance(link, Shim):
            return found.kind == "macvlan" and found.peer == self._devices.uplink(link.uplink).index
        return found.kind == "bridge"

    def _refused_to_make(self, operation: CreateLink, refusal: Refusal) -> Told:
        link, side = operation.link, operation.container
        found = self._devices.get(link.name)
        if side is not None and refusal.errno == errno.EEXIST:
            return Told(refusal.errno, f"{side.netns} has an interface {side.interface} already")
        if found is not None:
            words = f"{link.name} exists and is another one" if found.is_ours else describe_foreign(found)
            return Told(refusal.errno, words)
        why = refusal.text or errno.errorcode.get(refusal.errno, str(refusal.errno))
        return told(operation, refusal.errno, refusal.text, f"{link.name} cannot be made: {why}")

    def _messages(
        self, operations: Sequence[Op], build: Callable[[Op], Sequence[Message]]
    ) -> Iterator[tuple[Op, Sequence[Message]]]:
        for operation in operations:
            try:
                yield operation, build(operation)
            except Unusable as error:
                self._fail(operation, error)

    def _refused(self, wanted: Sequence[tuple[Op, Sequence[Message]]]) -> Iterator[tuple[Op, Refusal]]:
        """The first refusal of each operation."""
        owners = [operation for operation, messages in wanted for _ in messages]
        flat = [message for _, messages in wanted for message in messages]
        seen: set[int] = set()
        for refusal in self._rtnetlink.request(flat) if flat else ():
            operation = owners[refusal.place]
            if id(operation) not in seen:
                seen.add(id(operation))
                yield operation, refusal

    def _send(self, wanted: Sequence[tuple[Op, Sequence[Message]]]) -> dict[int, Refusal]:
        return {id(operation): refusal for operation, refusal in self._refused(wanted)}

    def _tried(self, operation: Op, action: Callable[[Op], None], argument: Op) -> None:
        try:
            action(argument)
        except OSError as error:
            self._fail(operation, error)

    def _fail(self, operation: CreateLink | UpdateLink | DeleteLink, error: OSError) -> None:
        there = self._devices.get(operation.link.name)
        is_foreign = there is not None and not there.is_ours
        if is_foreign and isinstance(operation.link, Bridge):
            self._taken.add(operation.link.name)
        self._failures.append(failure(operation, error, is_foreign=is_foreign))


def _alias(link: Link) -> str:
    """For people who look at `ip link`, and whose it is where the name does not tell."""
    if isinstance(link, (Bridge, Veth, Macvlan)) and link.network:
        return ALIAS + link.network
    name = link.bridge or link.name if isinstance(link, (Veth, Vxlan)) else link.name
    for prefix in (BRIDGE_PREFIX, VXLAN_PREFIX, SHIM_PREFIX):
        name = name.removeprefix(prefix)
    return ALIAS + name

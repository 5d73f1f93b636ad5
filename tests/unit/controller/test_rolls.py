"""What is kept of who takes part in a network is what would be found by looking at everything."""

from __future__ import annotations

import asyncio
import random
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.memory import MemoryStore
from backends.store import Delete, Put, Write
from controller.cluster import Cluster
from controller.rolls import roll_of
from controller.settings import Settings
from kvnet import codec, keys
from kvnet.model import Alive, Endpoint, NetworkObserved, Observed

NETWORKS = ("00000000000a", "00000000000b")
HOSTS = ("h1", "h2", "h3")

network, host, number = st.sampled_from(NETWORKS), st.sampled_from(HOSTS), st.integers(1, 4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("endpoint"), network, number, host),
        st.tuples(st.just("gone"), network, number, host),
        st.tuples(st.just("alive"), host, st.booleans()),
        st.tuples(st.just("observed"), host, st.dictionaries(network, st.integers(0, 9))),
        st.tuples(st.just("silent"), host),
    ),
    max_size=40,
)


def write(step: tuple[object, ...]) -> Write:
    match step:
        case ("endpoint", str(net), int(n), str(where)):
            made = Endpoint(f"e{n}", net, where, f"e{n}", (ip_address(f"10.0.0.{n + 1}"),), f"02:00:00:00:00:0{n}", 1.0)
            return Put(keys.endpoint(net, made.id), codec.encode(made))
        case ("gone", str(net), int(n), str()):
            return Delete(keys.endpoint(net, f"e{n}"))
        case ("alive", str(where), True):
            return Put(keys.alive(where), codec.encode(Alive(where, "1", 1.0)))
        case ("alive", str(where), False):
            return Delete(keys.alive(where))
        case ("observed", str(where), dict(seen)):
            told = {net: NetworkObserved(version) for net, version in seen.items()}
            return Put(keys.observed(where), codec.encode(Observed(where, 1.0, told)))
        case ("silent", str(where)):
            return Delete(keys.observed(where))
    raise AssertionError(step)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_roll_that_is_kept_is_the_one_that_would_be_made_anew(steps: list[tuple[object, ...]]) -> None:
    async def follow() -> None:
        store = MemoryStore()
        async with Cluster.open(store, Settings(upkeep=False), random.Random(1)) as cluster:
            state = cluster._state
            for step in steps:
                revision = await store.commit([], [write(step)])
                await state.reached(revision, *state.tables)
                for net in NETWORKS:
                    kept, anew = state.rolls.of(net), roll_of(state, net)
                    assert (kept.living, kept.away, kept.slowest) == (anew.living, anew.away, anew.slowest), step

    asyncio.run(follow())

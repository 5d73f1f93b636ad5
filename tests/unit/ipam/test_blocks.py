"""The tree that finds room, and the blocks that name holders, against models that look at every address."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from controller.ipam.blocks import Blocks, FreeTree, cidr_of, node_of
from kvnet.model import Cidr

WIDTH = 6  # 64 addresses: small enough to look at each, deep enough for every case

nodes = st.integers(1, 2 ** (WIDTH + 1) - 1)
steps = st.lists(st.tuples(st.booleans(), nodes), max_size=40)


def span(node: int) -> range:
    length = node.bit_length() - 1
    size = 1 << (WIDTH - length)
    start = (node ^ 1 << length) * size
    return range(start, start + size)


def grown(steps: list[tuple[bool, int]]) -> tuple[FreeTree, list[int]]:
    """A tree and the nodes that cover something in it, after covering and uncovering."""
    tree, covering = FreeTree(WIDTH), list[int]()
    for is_new, node in steps:
        if is_new or not covering:
            tree.cover(node)
            covering.append(node)
        else:
            tree.uncover(covering.pop(node % len(covering)))
    return tree, covering


def free_blocks(covering: list[int], within: int, length: int) -> list[int]:
    taken = {address for node in covering for address in span(node)}
    candidates = (node for node in range(1 << length, 2 << length) if set(span(node)) <= set(span(within)))
    return [node for node in candidates if not taken & set(span(node))]


@given(steps, nodes, st.integers(0, WIDTH), st.integers(0, 2**WIDTH))
def test_the_first_free_block_is_the_one_that_looking_at_every_address_finds(
    steps: list[tuple[bool, int]], within: int, length: int, at_least: int
) -> None:
    tree, covering = grown(steps)
    expected = [node for node in free_blocks(covering, within, length) if span(node).start >= at_least]
    assert tree.first_free(within, length, at_least) == (expected[0] if expected else None)


@given(steps, nodes, st.integers(0, WIDTH))
def test_free_blocks_are_counted_right(steps: list[tuple[bool, int]], within: int, length: int) -> None:
    tree, covering = grown(steps)
    assert tree.count_free(within, length) == len(free_blocks(covering, within, length))


@given(steps, nodes)
def test_the_largest_free_block_is_known_without_looking(steps: list[tuple[bool, int]], within: int) -> None:
    tree, covering = grown(steps)
    lengths = [length for length in range(WIDTH + 1) if free_blocks(covering, within, length)]
    assert tree.largest_free(within) == min(lengths, default=None)


@given(steps)
def test_what_is_uncovered_entirely_leaves_nothing_behind(steps: list[tuple[bool, int]]) -> None:
    tree, covering = grown(steps)
    for node in covering:
        tree.uncover(node)
    assert tree.largest_free(1) == 0
    assert not tree._best
    assert not tree._covers


v4 = st.builds(
    lambda address, length: ip_network((address >> (32 - length) << (32 - length), length)),
    st.integers(10 << 24, (10 << 24) + 255),
    st.integers(22, 32),
)
v6 = st.builds(
    lambda address, length: ip_network((address >> (128 - length) << (128 - length), length)),
    st.integers(0xFD << 120, (0xFD << 120) + 255),
    st.integers(118, 128),
)


@given(st.one_of(st.tuples(st.lists(v4), v4), st.tuples(st.lists(v6), v6)), st.data())
def test_overlapping_blocks_are_named_and_no_others(case: tuple[list[Cidr], Cidr], data: st.DataObject) -> None:
    held, wanted = case
    blocks: Blocks[int] = Blocks(wanted.max_prefixlen)
    for holder, cidr in enumerate(held):
        blocks.add(cidr, holder)
    gone = data.draw(st.sets(st.integers(0, len(held) - 1))) if held else set()
    for holder in gone:
        blocks.remove(held[holder], holder)
    expected = {i for i, cidr in enumerate(held) if i not in gone and cidr.overlaps(wanted)}
    assert sorted(blocks.overlapping(wanted)) == sorted(expected)


@given(st.one_of(v4, v6))
def test_a_block_and_its_node_are_the_same_thing(cidr: Cidr) -> None:
    assert cidr_of(node_of(cidr), cidr.max_prefixlen) == cidr

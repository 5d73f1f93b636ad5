"""CIDR blocks of one address family: what covers what, who holds it, and where the free room is.

`FreeTree` finds room in O(address bits) however much is claimed; `Blocks` names the holders of what is in the way.
A node of the tree is numbered as in a heap: 1 is the whole family, 2n and 2n+1 are the halves of n.
Nothing here knows of pools, networks or hosts.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

from kvnet.model import Cidr

H = TypeVar("H")


def node_of(cidr: Cidr) -> int:
    return 1 << cidr.prefixlen | int(cidr.network_address) >> (cidr.max_prefixlen - cidr.prefixlen)


def cidr_of(node: int, width: int) -> Cidr:
    """The block of a node in a family of `width` address bits."""
    length = node.bit_length() - 1
    start = (node ^ 1 << length) << (width - length)
    return IPv4Network((start, length)) if width == 32 else IPv6Network((start, length))


class FreeTree:
    """What is covered, counted, so that covering twice and uncovering once leaves it covered.

    Per node that is not wholly free it keeps the prefix length of the largest free block beneath.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._full = width + 1  # a length that no block has: nothing is free here
        self._covers: Counter[int] = Counter()
        self._best: dict[int, int] = {}

    def cover(self, node: int) -> None:
        self._covers[node] += 1
        if self._covers[node] == 1:
            self._refresh(node)

    def uncover(self, node: int) -> None:
        self._covers[node] -= 1
        if not self._covers[node]:
            del self._covers[node]
            self._refresh(node)

    def _refresh(self, node: int) -> None:
        best = self._best
        while node:
            length = node.bit_length() - 1
            if node in self._covers:
                found = self._full
            else:
                left, right = best.get(2 * node, length + 1), best.get(2 * node + 1, length + 1)
                found = length if left == right == length + 1 else min(left, right)
            if found == best.get(node, length):
                return
            if found == length:
                del best[node]
            else:
                best[node] = found
            node >>= 1

    def _is_covered_from_above(self, node: int) -> bool:
        while node := node >> 1:
            if node in self._covers:
                return True
        return False

    def largest_free(self, within: int) -> int | None:
        """The prefix length of the largest free block inside `within`."""
        found = self._best.get(within, within.bit_length() - 1)
        return None if found == self._full or self._is_covered_from_above(within) else found

    def first_free(self, within: int, length: int, at_least: int = 0) -> int | None:
        """The first free block of that prefix length inside `within` that starts at or after address `at_least`."""
        if self._is_covered_from_above(within):
            return None
        stack = [within]
        while stack:
            node = stack.pop()
            own = node.bit_length() - 1
            if own > length or self._best.get(node, own) > length:
                continue
            shift = self.width - own
            start = (node ^ 1 << own) << shift
            if own == length and start >= at_least:
                return node
            if start + (1 << shift) > at_least and own < length:
                stack += (2 * node + 1, 2 * node)
        return None

    def count_free(self, within: int, length: int) -> int:
        """How many free blocks of that prefix length are inside `within`; looks at every node that is not free."""
        if self._is_covered_from_above(within):
            return 0
        count, stack = 0, [within]
        while stack:
            node = stack.pop()
            own = node.bit_length() - 1
            if own > length:
                continue
            best = self._best.get(node, own)
            if best == own:
                count += 1 << (length - own)
            elif best <= length:
                stack += (2 * node, 2 * node + 1)
        return count


class Blocks(Generic[H]):
    """Blocks and their holders. A block may have several holders, and blocks may overlap."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._holders: dict[tuple[int, int], dict[H, None]] = {}
        self._sorted: list[tuple[int, int]] = []
        self._lengths: Counter[int] = Counter()

    def add(self, cidr: Cidr, holder: H) -> None:
        key = (int(cidr.network_address), cidr.prefixlen)
        if key not in self._holders:
            self._holders[key] = {}
            self._lengths[cidr.prefixlen] += 1
            insort(self._sorted, key)
        self._holders[key][holder] = None

    def remove(self, cidr: Cidr, holder: H) -> None:
        key = (int(cidr.network_address), cidr.prefixlen)
        holders = self._holders[key]
        del holders[holder]
        if not holders:
            del self._holders[key]
            del self._sorted[bisect_left(self._sorted, key)]
            self._lengths[cidr.prefixlen] -= 1
            if not self._lengths[cidr.prefixlen]:
                del self._lengths[cidr.prefixlen]

    def covering(self, cidr: Cidr) -> Iterator[H]:
        """Holders of blocks that contain `cidr` entirely (or are it), the widest first."""
        start = int(cidr.network_address)
        for length in sorted(self._lengths):
            if length <= cidr.prefixlen:
                shift = self.width - length
                yield from self._holders.get((start >> shift << shift, length), ())

    def inside(self, cidr: Cidr) -> Iterator[H]:
        """Holders of blocks that are smaller parts of `cidr`, in address order."""
        start = int(cidr.network_address)
        end = start + (1 << (self.width - cidr.prefixlen))
        for i in range(bisect_left(self._sorted, (start, cidr.prefixlen + 1)), len(self._sorted)):
            key = self._sorted[i]
            if key[0] >= end:
                return
            yield from self._holders[key]

    def overlapping(self, cidr: Cidr) -> Iterator[H]:
        yield from self.covering(cidr)
        yield from self.inside(cidr)

"""A persistent map ordered by key: an insertion yields a new map and leaves the old one as it was.

It exists so that `spec.catalog` can be a pure function and a replay of a long log still takes O(log n) a command: a
tuple or a copied dict would make it quadratic. It knows nothing of the catalog. An AVL tree whose nodes are shared
between versions.

Source: Adelson-Velsky and Landis 1962 (balance); Okasaki 1998, chapter 2 (path copying).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class _Node(NamedTuple, Generic[V]):
    key: str
    value: V
    left: _Node[V] | None
    right: _Node[V] | None
    height: int


class OrderedMap(Generic[V]):
    """An immutable mapping from str to V. Keys come in code point order, which is the byte order of UTF-8 (Consul's
    order).
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[V] | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: str) -> bool:
        return _find(self._root, key) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrderedMap) and tuple(self.items()) == tuple(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return f"OrderedMap({dict(self.items())!r})"

    def get(self, key: str) -> V | None:
        """The value at `key`, or None."""
        node = _find(self._root, key)
        return None if node is None else node.value

    def items(self) -> Iterator[tuple[str, V]]:
        """All pairs, in the order of the keys."""
        return _items_from(self._root, "")

    def with_prefix(self, prefix: str) -> Iterator[tuple[str, V]]:
        """The pairs whose keys begin with `prefix`, in the order of the keys: O(log n) to find the first."""
        for key, value in _items_from(self._root, prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def put(self, key: str, value: V) -> OrderedMap[V]:
        """This map with `key` bound to `value`."""
        return _made(_put(self._root, key, value), self._size + (key not in self))

    def without(self, key: str) -> OrderedMap[V]:
        """This map without `key`; the map itself if `key` is not in it."""
        return _made(_without(self._root, key), self._size - 1) if key in self else self


def _made(root: _Node[V] | None, size: int) -> OrderedMap[V]:
    made: OrderedMap[V] = OrderedMap()
    made._root, made._size = root, size
    return made


def _find(node: _Node[V] | None, key: str) -> _Node[V] | None:
    while node is not None and node.key != key:
        node = node.left if key < node.key else node.right
    return node


def _items_from(node: _Node[V] | None, start: str) -> Iterator[tuple[str, V]]:
    """In-order walk from the first key >= `start`, with the path as an explicit stack."""
    pending: list[_Node[V]] = []
    while node is not None:
        if node.key >= start:
            pending.append(node)
            node = node.left
        else:
            node = node.right
    while pending:
        top = pending.pop()
        yield top.key, top.value
        child = top.right
        while child is not None:
            pending.append(child)
            child = child.left


def _height(node: _Node[V] | None) -> int:
    return 0 if node is None else node.height


def _node(key: str, value: V, left: _Node[V] | None, right: _Node[V] | None) -> _Node[V]:
    return _Node(key, value, left, right, 1 + max(_height(left), _height(right)))


def _balanced(key: str, value: V, left: _Node[V] | None, right: _Node[V] | None) -> _Node[V]:
    """A node over two balanced subtrees whose heights differ by at most two: one rotation, or two."""
    if left is not None and left.height > _height(right) + 1:
        if _height(left.left) >= _height(left.right):
            return _node(left.key, left.value, left.left, _node(key, value, left.right, right))
        pivot = left.right
        assert pivot is not None
        lower = _node(left.key, left.value, left.left, pivot.left)
        return _node(pivot.key, pivot.value, lower, _node(key, value, pivot.right, right))
    if right is not None and right.height > _height(left) + 1:
        if _height(right.right) >= _height(right.left):
            return _node(right.key, right.value, _node(key, value, left, right.left), right.right)
        pivot = right.left
        assert pivot is not None
        upper = _node(right.key, right.value, pivot.right, right.right)
        return _node(pivot.key, pivot.value, _node(key, value, left, pivot.left), upper)
    return _node(key, value, left, right)


def _put(node: _Node[V] | None, key: str, value: V) -> _Node[V]:
    if node is None:
        return _Node(key, value, None, None, 1)
    if key == node.key:
        return _Node(key, value, node.left, node.right, node.height)
    if key < node.key:
        return _balanced(node.key, node.value, _put(node.left, key, value), node.right)
    return _balanced(node.key, node.value, node.left, _put(node.right, key, value))


def _without(node: _Node[V] | None, key: str) -> _Node[V] | None:
    if node is None:
        return None
    if key < node.key:
        return _balanced(node.key, node.value, _without(node.left, key), node.right)
    if key > node.key:
        return _balanced(node.key, node.value, node.left, _without(node.right, key))
    if node.left is None or node.right is None:
        return node.right if node.left is None else node.left
    successor = node.right
    while successor.left is not None:
        successor = successor.left
    return _balanced(successor.key, successor.value, node.left, _without(node.right, successor.key))

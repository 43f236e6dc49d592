"""The smallest part of a wrong history that is still wrong.

Which operations may be left out? If a history is linearizable, then so is what remains of it when operations are
dropped whose value no remaining operation finds: restrict the order to what remains, and each remaining answer still
stands behind the write that it saw, with no write between. So a part that is *closed* (with each read or cas, every
write that it may have seen) and not linearizable shows that the whole is not. A read cannot have seen a write that was
called after it returned, nor one that was certainly overwritten: a third operation wrote after it, and returned
before the read was called.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

from model_checks.histories.register import NULL, READ, WRITE, Action
from model_checks.histories.search import search

SEARCHES = 400
"""How many smaller parts to try."""
CONFIGURATIONS = 20_000
"""The limit of each search; a part that needs more counts as not shown to be wrong."""


class Writers:
    """For each read or cas of a history, the actions whose value it may have seen."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._of_value: dict[int, list[int]] = {}
        self._actions = actions
        for index, action in enumerate(actions):
            if action.kind != READ:
                self._of_value.setdefault(action.produced, []).append(index)
        by_return = sorted((action.ret, action.call) for action in actions if action.kind != READ)
        self._returns = [ret for ret, _ in by_return]
        self._latest_call = list(itertools.accumulate((call for _, call in by_return), max))

    def seen_by(self, reader: Action) -> list[int]:
        """Indexes of the writes that `reader` may have seen; if all were overwritten, the last of them."""
        earlier = [i for i in self._of_value.get(reader.expected, ()) if self._actions[i].call < reader.ret]
        place = bisect.bisect_left(self._returns, reader.call)
        overwritten_before = self._latest_call[place - 1] if place else -1
        possible = [i for i in earlier if self._actions[i].ret > overwritten_before]
        return possible or earlier[-1:]

    def closure(self, chosen: Sequence[int]) -> list[int]:
        """The indexes `chosen` and, for each read or cas among them, what it may have seen, and so on; sorted."""
        closed = set(chosen)
        open_indexes = list(chosen)
        while open_indexes:
            reader = self._actions[open_indexes.pop()]
            if reader.kind != WRITE:
                found = [index for index in self.seen_by(reader) if index not in closed]
                closed.update(found)
                open_indexes += found
        return sorted(closed)


def minimise(chosen: list[int], still_wrong: Callable[[list[int]], bool]) -> list[int]:
    """Delta debugging (Zeller 2002): drop ever smaller chunks while what remains is still wrong."""
    size = max(1, len(chosen) // 2)
    while True:
        start = 0
        dropped = False
        while start < len(chosen):
            smaller = chosen[:start] + chosen[start + size :]
            if smaller and still_wrong(smaller):
                chosen, dropped = smaller, True
            else:
                start += size
        if size == 1 and not dropped:
            return chosen
        size = max(1, size // 2)


def shrink(actions: Sequence[Action], furthest: int) -> list[Action]:
    """A part of `actions` (not linearizable; no order got past the position `furthest`) that is small and still
    wrong.
    """
    writers = Writers(actions)
    left = SEARCHES

    def still_wrong(chosen: list[int]) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False
        part = [actions[index] for index in writers.closure(chosen)]
        return search(part, CONFIGURATIONS).linearizable is False

    written = {action.produced for action in actions}
    required = [action for action in actions if not action.optional]
    unwritten = [action for action in required if action.expected > NULL and action.expected not in written]
    if unwritten:
        return unwritten[:1]
    centre = sum(1 for action in actions if action.call <= furthest)
    everything = list(range(len(actions)))
    reach = 8
    chosen = everything
    while reach < len(actions):
        window = everything[max(0, centre - reach) : centre + reach]
        if still_wrong(window):
            chosen = window
            break
        reach *= 4
    chosen = minimise(chosen, still_wrong)
    return [actions[index] for index in writers.closure(chosen)]

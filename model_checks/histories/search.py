"""Linearizability of one register: a depth-first search that decides as late as it can.

Source: Wing and Gong 1993; Lowe 2017 ("Testing for linearizability": memoised configurations, just-in-time
linearization); Horn and Kroening 2015. The history is a linked list of calls and returns; what stands before the
first return is the *window*: the actions that may take effect next. The first return belongs to the *forced* action.
A configuration is the set of actions done (bits over the window only), the optional ones used, and the register's
value.

Four rules keep the search small; each drops only orders for which another explains the same answers:

1. An enabled read takes effect at once: it changes nothing and frees its place.
2. A value with unanswered reads (or cas that need it) and no writer left may not be overwritten: nobody could bring
   it back.
3. A write takes effect late: when it is forced, or when an action in the window wants its value. An optional action
   takes effect only for the latter reason. (Were it overwritten unread, its effect would not be missed.)
4. *Hiding.* A forced write that was already in the window when another write took effect may be thought to have taken
   effect just before that one, overwritten at once: it leaves without changing the value. The *horizon* is the latest
   position at which some write took effect; whatever was called before it can hide. Without this rule, which of n
   open writes were hidden is 2^n configurations; with it, none.

Memory is bounded: at most `limit` configurations are remembered; more, and the answer is None, "too many".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from model_checks.histories.operations import FOREVER
from model_checks.histories.register import NULL, READ, WRITE, Action

DEFAULT_LIMIT = 1_000_000
"""Configurations to remember a key (about 200 bytes each)."""


class Searched(msgspec.Struct, frozen=True):
    """`linearizable` is None if the limit was reached. `furthest`: the position in the history that no order got
    past.
    """

    linearizable: bool | None
    configurations: int
    furthest: int


class _Frame(msgspec.Struct, gc=False):
    """A point to come back to: the choices not tried yet, and the configuration in which they were open."""

    choices: list[int]
    trail: int
    state: int
    base: int
    done: int
    used: int
    horizon: int
    deadline: int


class _Search:
    """The linked list, the configuration, and what was taken out of the list (the trail), to be put back."""

    def __init__(self, actions: Sequence[Action]) -> None:
        required = [action for action in actions if action.ret < FOREVER]
        optional = [action for action in actions if action.ret >= FOREVER]
        self.count = len(required)
        ordered = required + optional
        self.kind = [action.kind for action in ordered]
        self.expected = [action.expected for action in ordered]
        self.produced = [action.produced for action in ordered]
        self._link(required, optional)
        values = max([0, *self.expected, *self.produced]) + 1
        self.needs = [0] * values  # required actions left that must find this value
        self.producers = [0] * values  # actions left that would write it
        for action in required:
            if action.kind != WRITE:
                self.needs[action.expected] += 1
        for action in ordered:
            if action.kind != READ:
                self.producers[action.produced] += 1
        self._group_optional(len(ordered))
        self.trail: list[int] = []
        self.state = NULL
        self.base = self.done = self.used = 0
        self.horizon = -1
        self.deadline = self.furthest = 0

    def _link(self, required: Sequence[Action], optional: Sequence[Action]) -> None:
        """Number the events 1..2n in their order, 0 the head, 2n+1 the end; optional calls fall between them."""
        events = sorted(
            [(action.call, index) for index, action in enumerate(required)]
            + [(action.ret, ~index) for index, action in enumerate(required)]
        )
        self.positions = [-1, *(position for position, _ in events)]
        end = len(events) + 1
        self.owner = [0, *(index for _, index in events), -1]  # the action of a call, ~action of a return
        self.end = end
        self.following = [*range(1, end + 1), end]
        self.preceding = [0, *range(end)]
        self.call = [0] * (len(required) + len(optional))
        self.ret = [0] * len(required)
        for position, (_, index) in enumerate(events, start=1):
            if index >= 0:
                self.call[index] = position
            else:
                self.ret[~index] = position
        place = 0
        for index, action in enumerate(optional, start=len(required)):
            while place < len(events) and self.positions[place + 1] < action.call:
                place += 1
            self.call[index] = place

    def _group_optional(self, total: int) -> None:
        """Optional actions that do the same differ in nothing but when they became possible: use them in that order."""
        self.groups: list[list[int]] = []
        self.group_of: dict[int, int] = {}
        self.writer_of: dict[int, int] = {}  # produced value -> group of optional writes
        self.swaps_to: dict[int, list[int]] = {}  # produced value -> groups of optional cas
        numbers: dict[tuple[int, int, int], int] = {}
        for index in range(self.count, total):
            name = (self.kind[index], self.expected[index], self.produced[index])
            if name not in numbers:
                numbers[name] = group = len(self.groups)
                self.groups.append([])
                if self.kind[index] == WRITE:
                    self.writer_of[self.produced[index]] = group
                else:
                    self.swaps_to.setdefault(self.produced[index], []).append(group)
            self.groups[numbers[name]].append(index)
            self.group_of[index] = numbers[name]
        self.used_of_group = [0] * len(self.groups)

    # --- taking an action out of the list, and putting it back

    def _take(self, index: int) -> None:
        """The action is over: out of the list, into the done bits, out of the counts, onto the trail."""
        if index < self.count:
            following, preceding = self.following, self.preceding
            position = self.call[index]
            before, after = preceding[position], following[position]
            following[before], preceding[after] = after, before
            position = self.ret[index]
            before, after = preceding[position], following[position]
            following[before], preceding[after] = after, before
            done = self.done | 1 << (index - self.base)
            while done & 1:
                done >>= 1
                self.base += 1
            self.done = done
            if self.kind[index] != WRITE:
                self.needs[self.expected[index]] -= 1
        else:
            self.used |= 1 << (index - self.count)
            self.used_of_group[self.group_of[index]] += 1
        if self.kind[index] != READ:
            self.producers[self.produced[index]] -= 1
        self.trail.append(index)

    def _put_back(self, mark: int) -> None:
        """Undo the trail down to length `mark` (the configuration itself is restored from the frame)."""
        following, preceding, trail = self.following, self.preceding, self.trail
        while len(trail) > mark:
            index = trail.pop()
            if index < self.count:
                for position in (self.ret[index], self.call[index]):
                    following[preceding[position]] = position
                    preceding[following[position]] = position
                if self.kind[index] != WRITE:
                    self.needs[self.expected[index]] += 1
            else:
                self.used_of_group[self.group_of[index]] -= 1
            if self.kind[index] != READ:
                self.producers[self.produced[index]] += 1

    # --- one configuration

    def unwritten(self) -> bool:
        """Whether some answer is a value that nobody wrote: no order explains that."""
        return any(need and not self.producers[value] for value, need in enumerate(self.needs) if value != NULL)

    def settle(self) -> list[int] | None:
        """Let every enabled read take effect, then name the choices, best last; None when the history is explained."""
        kind, expected, following, owner, state = self.kind, self.expected, self.following, self.owner, self.state
        writes: list[int] = []
        swaps: list[int] = []
        waiting: set[int] = set()
        position = following[0]
        while (index := owner[position]) >= 0:
            if kind[index] == WRITE:
                writes.append(index)
            elif expected[index] != state:
                waiting.add(expected[index])
            elif kind[index] == READ:
                position = self.preceding[position]
                self._take(index)
            else:
                swaps.append(index)
            position = following[position]
        self.deadline = position
        if position == self.end:
            return None
        if position > self.furthest:
            self.furthest = position
        return self._choices(~owner[position], writes, swaps, waiting)

    def _choices(self, forced: int, writes: list[int], swaps: list[int], waiting: set[int]) -> list[int]:
        """Actions that may take effect now (rules 2 and 3), or ~forced: hide it (rule 4)."""
        choices: list[int] = []
        must_stay = self._irreplaceable(self.state)
        if self.kind[forced] == WRITE:
            if self.call[forced] < self.horizon and self._may_hide(forced):
                choices.append(~forced)
            if not must_stay or self.produced[forced] == self.state:
                choices.append(forced)
        choices += [index for index in self._most_urgent(swaps) if self._may_swap(index)]
        if not must_stay and (waiting or swaps):
            if swaps:
                waiting.add(self.state)  # the value may have to be left, or written again, before a cas takes it
            if self.swaps_to:
                choices += self._optional_swaps(waiting)
            choices += self._optional_writers(waiting)
            wanted = [index for index in writes if self.produced[index] in waiting and index != forced]
            choices += self._most_urgent(wanted)
        return choices

    def _most_urgent(self, alike: list[int]) -> list[int]:
        """Of actions in the window that write one value and need the same, the one that must end first will do: any
        order that takes another may exchange the two."""
        first: dict[int, int] = {}
        for index in alike:
            value = self.produced[index]
            if value not in first or self.ret[index] < self.ret[first[value]]:
                first[value] = index
        return list(first.values())

    def _irreplaceable(self, value: int) -> bool:
        return self.needs[value] > 0 and self.producers[value] == 0

    def _may_hide(self, forced: int) -> bool:
        value = self.produced[forced]
        return value == self.state or self.needs[value] == 0 or self.producers[value] > 1

    def _may_swap(self, index: int) -> bool:
        """A cas that finds its value may run unless others still need that value for good."""
        state = self.state
        own_need = 1 if index < self.count else 0
        return self.needs[state] <= own_need or self.producers[state] > 0 or self.produced[index] == state

    def _available(self, group: int) -> int | None:
        """The first unused optional action of `group`, if it was called before the first return."""
        used = self.used_of_group[group]
        members = self.groups[group]
        if used < len(members) and self.call[members[used]] < self.deadline:
            return members[used]
        return None

    def _optional_writers(self, waiting: set[int]) -> list[int]:
        """An optional write for each value that is waited for."""
        groups = (self.writer_of[value] for value in sorted(waiting & self.writer_of.keys()))
        return [index for index in map(self._available, groups) if index is not None]

    def _optional_swaps(self, waiting: set[int]) -> list[int]:
        """Optional cas that lead, perhaps through others, to a value that is waited for; adds what they wait for."""
        found: list[int] = []
        open_values = sorted(waiting)
        while open_values:
            for group in self.swaps_to.get(open_values.pop(), ()):
                index = self._available(group)
                if index is None:
                    continue
                if self.expected[index] == self.state and self._may_swap(index):
                    found.append(index)
                if self.expected[index] not in waiting:
                    waiting.add(self.expected[index])
                    open_values.append(self.expected[index])
        return found

    def follow(self, choice: int) -> None:
        """Make the choice: the action takes effect, or the forced write hides."""
        if choice < 0:
            self._take(~choice)
            return
        if self.kind[choice] == WRITE:
            self.horizon = max(self.horizon, self.deadline)
        self._take(choice)
        self.state = self.produced[choice]

    def frame(self, choices: list[int]) -> _Frame:
        """Remember this configuration and its choices."""
        return _Frame(
            choices, len(self.trail), self.state, self.base, self.done, self.used, self.horizon, self.deadline
        )

    def back_to(self, frame: _Frame) -> None:
        """Return to the configuration of `frame`."""
        self._put_back(frame.trail)
        self.state, self.base, self.done = frame.state, frame.base, frame.done
        self.used, self.horizon, self.deadline = frame.used, frame.horizon, frame.deadline


def search(actions: Sequence[Action], limit: int = DEFAULT_LIMIT) -> Searched:
    """Decide whether `actions` (one key, ordered by call) are linearizable, remembering at most `limit`
    configurations.
    """
    run = _Search(actions)
    if run.unwritten():
        return Searched(False, 0, -1)
    frames: list[_Frame] = []
    seen: dict[tuple[int, int, int, int], int] = {}
    while True:
        choices = run.settle()
        if choices is None:
            return Searched(True, len(seen), run.positions[run.furthest])
        if len(choices) > 1:
            configuration = (run.base, run.done, run.used, run.state)
            # A farther horizon lets more writes hide: only an equal or farther one makes the visit superfluous.
            if seen.get(configuration, -2) >= run.horizon:
                choices = []
            elif len(seen) >= limit:
                return Searched(None, len(seen), run.positions[run.furthest])
            else:
                seen[configuration] = run.horizon
        if len(choices) > 1:
            frames.append(run.frame(choices))
        elif not choices:
            if not frames:
                return Searched(False, len(seen), run.positions[run.furthest])
            run.back_to(frames[-1])
            choices = frames[-1].choices
        choice = choices.pop()
        if frames and not frames[-1].choices:
            frames.pop()
        run.follow(choice)

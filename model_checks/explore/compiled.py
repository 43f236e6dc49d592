"""The fast search with its inner loop compiled: the same tables, counts and counterexamples, some ten times the speed.

It fills the kernel's arrays from `interned.Tables` when a pass over a batch misses something, and judges what the
kernel has found new. It must not be imported where numba is not installed: `search.explore` imports it when it is
asked for. Compilation takes some seconds, once for each installation, so it pays from about a million states.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from model_checks.explore import kernel
from model_checks.explore.interned import FIELD
from model_checks.explore.judge import Judge
from model_checks.explore.results import Limits
from model_checks.explore.search import InternedSearch, Violation
from spec.raft.bounds import Bounds
from spec.raft.network import Protocol

WORD_BITS = 64
HISTORY_BITS = 13
BATCH = 1 << 14
MISSES_MAX = 1 << 14


def grown(array: Any, shape: tuple[int, ...], empty: int) -> Any:
    """`array` in an array of at least `shape`, padded with `empty`; sizes grow to powers of two."""
    if all(have >= need for have, need in zip(array.shape, shape, strict=True)):
        return array
    larger = tuple(
        1 << (need - 1).bit_length() if have < need else have for have, need in zip(array.shape, shape, strict=True)
    )
    found = np.full(larger, empty, array.dtype)
    found[tuple(slice(have) for have in array.shape)] = array
    return found


class CompiledSearch(InternedSearch):
    """`InternedSearch` with states as 64-bit words in an array; `parents` of the base stays empty."""

    def __init__(self, protocol: Protocol, bounds: Bounds, judge: Judge, limits: Limits) -> None:
        super().__init__(protocol, bounds, judge, limits)
        self.bits = min(FIELD, (WORD_BITS - HISTORY_BITS) // self.width)
        self.count = 0
        self.expanded = 0
        self.states = np.zeros(1 << 16, np.uint64)
        self.parent_numbers = np.zeros(1 << 16, np.int32)
        self.table = np.full(1 << 18, -1, np.int32)
        self.first_move = np.full((self.width, 1024), kernel.NOT_FILLED, np.int32)
        self.move_count = np.zeros((self.width, 1024), np.int32)
        self.views = np.zeros((self.width, 1024), np.int32)
        self.moves = np.zeros((4096, 4), np.int32)
        self.moves_used = 0
        self.sends = np.zeros((4096, 2), np.int32)
        self.sends_used = 0
        self.delivery_keys = np.zeros(1 << 16, np.uint64)
        self.delivery_targets = np.zeros(1 << 16, np.int32)
        self.deliveries_used = 0
        self.next_history = np.full((16, 256), kernel.NOT_FILLED, np.int32)
        self.known_pairs = np.zeros(1 << 16, np.uint64)
        self.pairs_used = 0
        self.taken_now = np.zeros(256, np.int64)
        self.misses = np.zeros((MISSES_MAX, 5), np.int64)
        self.fresh = np.zeros((MISSES_MAX, 5), np.int64)
        self._sent_numbers: dict[tuple[tuple[int, int], ...], int] = {}

    # ------------------------------------------------------------------------------------------------------ states

    def word(self, state: int) -> int:
        """The 64-bit word of a packed state. Raises OverflowError if a field does not fit."""
        word = 0
        for position in range(self.width + 1):
            number = state >> FIELD * position & ((1 << FIELD) - 1)
            limit = HISTORY_BITS if position == self.width else self.bits
            if number >> limit:
                raise OverflowError(
                    "too many configurations or histories for 64-bit states: use the interpreted search"
                )
            word |= number << self.bits * position
        return word

    def packed(self, number: int) -> int:
        """State `number` as `Tables` packs it."""
        word, state = int(self.states[number]), 0
        for position in range(self.width + 1):
            limit = HISTORY_BITS if position == self.width else self.bits
            state |= (word >> self.bits * position & ((1 << limit) - 1)) << FIELD * position
        return state

    # ------------------------------------------------------------------------------------------------------ search

    def begin(self, first: int) -> None:
        """Put the start into the arrays."""
        self.states[0] = self.word(first)
        kernel.rehash(self.states, 1, self.table)
        self.count = 1
        self.note_configurations()

    def distinct(self) -> int:
        """How many states were found."""
        return self.count

    def frontier_size(self) -> int:
        """How many of them were not expanded."""
        return self.count - self.expanded

    def expand(self, began: float) -> str:
        """Find the states one step beyond the frontier; returns why the search gives up, if it does."""
        end = self.count
        while self.expanded < end:
            batch = (self.expanded, min(end, self.expanded + BATCH))
            judged = self.count
            self.expand_words(batch)
            self.expanded = batch[1]
            self.judge_from(judged)
            if self.count > self.limits.states:
                return f"stopped at {self.count:,} states"
            if time.monotonic() - began > self.limits.seconds:
                return f"stopped after {self.limits.seconds:g} seconds"
        return ""

    def expand_words(self, batch: tuple[int, int]) -> None:
        """Run the kernel over a batch until nothing is missing."""
        status = kernel.MISSED
        while status != kernel.CLEAN:
            self.taken_now = np.zeros(max(256, 2 * len(self.tables.recorded)), np.int64)
            status, self.count, generated, missed = kernel.expand(
                batch,
                self.width,
                self.bits,
                self.count,
                self.states,
                self.parent_numbers,
                self.table,
                self.first_move,
                self.moves,
                self.move_count,
                self.sends,
                self.delivery_keys,
                self.delivery_targets,
                self.next_history,
                self.taken_now,
                self.misses,
            )
            if status == kernel.FULL:
                self.make_room_for_states()
            for kind, number, x, y, z in self.misses[:missed].tolist():
                self.fill_in(kind, number, x, y, z)
            self.note_configurations()
        self.generated += generated
        for recorded in np.flatnonzero(self.taken_now).tolist():
            self.recorded_taken[recorded] += int(self.taken_now[recorded])

    def make_room_for_states(self) -> None:
        """Double the arrays of states and their hash table."""
        self.states = grown(self.states, (self.count + 1,), 0)
        self.parent_numbers = grown(self.parent_numbers, (self.count + 1,), 0)
        self.table = np.full(4 * len(self.states), -1, np.int32)
        kernel.rehash(self.states, self.count, self.table)

    def fill_in(self, kind: int, number: int, x: int, y: int, z: int) -> None:
        """Answer a miss of the kernel at state `number`. Raises Violation if the answer is a broken property."""
        if kind == kernel.MISS_MOVES:
            self.fill_moves(x, y)
        elif kind == kernel.MISS_HISTORY:
            broken, after = self.tables.after_record(x, y)
            if broken is not None:
                raise Violation(broken, self.packed(number), self.tables.recorded[y])
            self.next_history = grown(self.next_history, (0 if after is None else after + 1, 0), kernel.NOT_FILLED)
            self.next_history[x, y] = kernel.NOT_ENABLED if after is None else after
        else:
            target = y + (self.tables.deliver(x, y, z) >> FIELD * x)
            self.deliveries_used += 1
            key = np.uint64((x + 1) << 56 | y << 24 | z)
            self.delivery_targets[kernel.place(self.delivery_keys, key)] = target

    def fill_moves(self, position: int, number: int) -> None:
        """Copy the moves of a configuration from the tables."""
        moves = self.tables.fill(position, number)
        self.moves = grown(self.moves, (self.moves_used + len(moves), 4), 0)
        self.first_move[position, number] = self.moves_used
        self.move_count[position, number] = len(moves)
        for move in moves:
            target = number + (move.delta >> FIELD * position)
            self.moves[self.moves_used] = (target, move.recorded, self.sent(move.sent), len(move.sent))
            self.moves_used += 1
        self.next_history = grown(self.next_history, (0, len(self.tables.recorded)), kernel.NOT_FILLED)

    def sent(self, sent: tuple[tuple[int, int], ...]) -> int:
        """The number of the first of these sends, stored once."""
        first = self._sent_numbers.setdefault(sent, self.sends_used)
        if first == self.sends_used and sent:
            self.sends = grown(self.sends, (self.sends_used + len(sent), 2), 0)
            self.sends[self.sends_used : self.sends_used + len(sent)] = sent
            self.sends_used += len(sent)
        return first

    def note_configurations(self) -> None:
        """Make the arrays by configuration as long as the tables, and the hash table of deliveries sparse enough."""
        for position, views in enumerate(self.tables.views):
            if len(views) >> self.bits or len(self.tables.histories.values) >> HISTORY_BITS:
                raise OverflowError(
                    "too many configurations or histories for 64-bit states: use the interpreted search"
                )
            self.first_move = grown(self.first_move, (0, len(views)), kernel.NOT_FILLED)
            self.move_count = grown(self.move_count, (0, len(views)), 0)
            self.views = grown(self.views, (0, len(views)), 0)
            self.views[position, : len(views)] = views
        if 2 * (self.deliveries_used + MISSES_MAX) > len(self.delivery_keys):
            old_keys, old_targets = self.delivery_keys, self.delivery_targets
            self.delivery_keys = np.zeros(2 * len(old_keys), np.uint64)
            self.delivery_targets = np.zeros(2 * len(old_keys), np.int32)
            for slot in np.flatnonzero(old_keys).tolist():
                place = kernel.place(self.delivery_keys, old_keys[slot])
                self.delivery_keys[place], self.delivery_targets[place] = old_keys[slot], old_targets[slot]

    # ------------------------------------------------------------------------------------------------------ judging

    def judge_from(self, first: int) -> None:
        """Judge what states from number `first` on show for the first time. Raises Violation."""
        fresh = len(self.fresh)
        while fresh == len(self.fresh):
            if 2 * (self.pairs_used + MISSES_MAX) > len(self.known_pairs):
                old = self.known_pairs
                self.known_pairs = np.zeros(2 * len(old), np.uint64)
                for key in old[np.flatnonzero(old)]:
                    self.known_pairs[kernel.place(self.known_pairs, key)] = key
            fresh = kernel.unjudged(
                first, self.count, self.width, self.bits, self.states, self.views, self.known_pairs, self.fresh
            )
            self.pairs_used += fresh
            for number, other, view, two, _ in self.fresh[:fresh].tolist():
                one = self.tables.view_servers[view]
                if other < 0:
                    broken = self.judge.past(self.tables.histories.values[two], one)
                else:
                    self._pairs.add(view << FIELD | two)
                    broken = self.judge.pair(one, self.tables.view_servers[two])
                if broken is not None:
                    parent = self.packed(int(self.parent_numbers[number]))
                    raise Violation(broken, parent, self.step_between(parent, self.packed(number)))

    # ------------------------------------------------------------------------------------------------------ results

    def path_before(self, state: int) -> list[int]:
        """The states from `state` back to the start."""
        number = int(self.table[kernel.find_state(self.states, self.table, np.uint64(self.word(state)))])
        path = [self.packed(number)]
        while number != 0:
            number = int(self.parent_numbers[number])
            path.append(self.packed(number))
        return path

    def count_visits(self) -> None:
        """Count, per configuration, the states expanded; note those that were only found."""
        for position in range(self.width):
            shift, field = np.uint64(self.bits * position), np.uint64((1 << self.bits) - 1)
            times = np.bincount((self.states[: self.expanded] >> shift & field).astype(np.int64))
            self.visits[position].update({number: int(times[number]) for number in np.flatnonzero(times).tolist()})
        self.found = [self.packed(number) for number in range(self.expanded, self.count)]

"""The compiled inner loop: expand packed global states over the tables that `interned` fills from the spec.

A global state is one 64-bit word: a configuration per server, and the history. The kernel only looks up and inserts;
whatever a table does not hold yet is reported as a miss, filled from the spec by `compiled`, and the batch is run
again until it misses nothing. It must not know anything of Raft. Needs numba and numpy (the extra `checks`).

Arrays are `uint64` for words and hash keys, `int32` for numbers; the comments at `expand` say what each holds.
"""

from __future__ import annotations

from typing import Any

import numba as nb

NOT_FILLED, ASKED, NOT_ENABLED = -2, -3, -1
"""Marks in tables: nobody asked; reported as a miss in this pass; known to be impossible (histories only)."""

MISS_MOVES, MISS_HISTORY, MISS_DELIVERY = 0, 1, 2
CLEAN, MISSED, FULL = 0, 1, 2
"""How a pass over a batch ended."""


def _mix(word: Any) -> Any:
    """A 64-bit finalizer (splitmix64)."""
    word ^= word >> nb.uint64(30)
    word *= nb.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> nb.uint64(27)
    word *= nb.uint64(0x94D049BB133111EB)
    return word ^ (word >> nb.uint64(31))


mix = nb.njit(cache=True, inline="always")(_mix)


def _place(keys: Any, key: Any) -> Any:
    """The slot of `key` in an open-addressing table of keys, or the free slot (key 0) where it belongs."""
    mask = nb.uint64(keys.shape[0] - 1)
    slot = mix(key) & mask
    while keys[slot] != nb.uint64(0) and keys[slot] != key:
        slot = (slot + nb.uint64(1)) & mask
    return nb.int64(slot)


place = nb.njit(cache=True)(_place)


def _note(rows: Any, row: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    """Write five numbers into a row."""
    rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3], rows[row, 4] = a, b, c, d, e


note = nb.njit(cache=True)(_note)


def _find_state(states: Any, table: Any, word: Any) -> Any:
    """The slot of `word` in the table of state numbers, or the free slot (-1) where it belongs."""
    mask = nb.uint64(table.shape[0] - 1)
    slot = mix(word + nb.uint64(0x9E3779B97F4A7C15)) & mask
    while table[slot] >= 0 and states[table[slot]] != word:
        slot = (slot + nb.uint64(1)) & mask
    return nb.int64(slot)


find_state = nb.njit(cache=True)(_find_state)


def _rehash(states: Any, count: Any, table: Any) -> None:
    """Fill an empty table with the first `count` states."""
    for number in range(count):
        table[find_state(states, table, states[number])] = number


rehash = nb.njit(cache=True)(_rehash)


def _expand(
    batch: Any,  # (first, end): numbers of the states to expand
    width: Any,  # servers
    bits: Any,  # bits of a configuration in a word
    count: Any,  # states known
    states: Any,  # words by number
    parents: Any,  # number of the state that each state was found from
    table: Any,  # hash table of state numbers
    first_move: Any,  # [position, configuration] -> number of the first move, or a mark
    moves: Any,  # [move] -> (target configuration, recorded step or -1, first send, sends)
    move_count: Any,  # [position, configuration] -> how many
    sends: Any,  # [send] -> (receiver, letter)
    delivery_keys: Any,  # hash table of (receiver, its configuration, letter)
    delivery_targets: Any,  # -> configuration with the letter delivered, or a mark
    next_history: Any,  # [history, recorded step] -> history, or a mark
    taken: Any,  # [recorded step] -> times taken in this pass
    misses: Any,  # out: (kind, state, x, y, z)
) -> Any:
    """One pass over a batch. Returns (status, states known, states generated, misses).

    One function on purpose: with its lookups in functions of their own, inlined or not, the loop takes 1.5 to 2 times
    as long, and with its arrays in named tuples six times, for numba then counts references to them.
    """
    field = (nb.uint64(1) << nb.uint64(bits)) - nb.uint64(1)
    generated, missed, status = 0, 0, 0
    for number in range(batch[0], batch[1]):
        word = states[number]
        history = nb.int64(word >> nb.uint64(bits * width))
        for position in range(width):
            shift = nb.uint64(bits * position)
            here = nb.int64((word >> shift) & field)
            start = first_move[position, here]
            if start < 0:
                status = MISSED
                if start == NOT_FILLED and missed < misses.shape[0]:
                    first_move[position, here] = ASKED
                    note(misses, missed, MISS_MOVES, number, position, here, 0)
                    missed += 1
                continue
            for move in range(start, start + move_count[position, here]):
                after = (word & ~(field << shift)) | (nb.uint64(moves[move, 0]) << shift)
                recorded = moves[move, 1]
                if recorded >= 0:
                    following = next_history[history, recorded]
                    if following == NOT_ENABLED:
                        continue
                    if following < 0:
                        status = MISSED
                        if following == NOT_FILLED and missed < misses.shape[0]:
                            next_history[history, recorded] = ASKED
                            note(misses, missed, MISS_HISTORY, number, history, recorded, 0)
                            missed += 1
                        continue
                    taken[recorded] += 1
                    low = (nb.uint64(1) << nb.uint64(bits * width)) - nb.uint64(1)
                    after = (after & low) | (nb.uint64(following) << nb.uint64(bits * width))
                known = True
                for send in range(moves[move, 2], moves[move, 2] + moves[move, 3]):
                    to, letter = sends[send, 0], sends[send, 1]
                    at = nb.uint64(bits * to)
                    receiver = nb.int64((word >> at) & field)
                    key = (
                        (nb.uint64(to + 1) << nb.uint64(56))
                        | (nb.uint64(receiver) << nb.uint64(24))
                        | nb.uint64(letter)
                    )
                    slot = place(delivery_keys, key)
                    if delivery_keys[slot] == nb.uint64(0) or delivery_targets[slot] < 0:
                        known, status = False, MISSED
                        if delivery_keys[slot] == nb.uint64(0) and missed < misses.shape[0]:
                            delivery_keys[slot], delivery_targets[slot] = key, ASKED
                            note(misses, missed, MISS_DELIVERY, number, to, receiver, letter)
                            missed += 1
                        continue
                    after = (after & ~(field << at)) | (nb.uint64(delivery_targets[slot]) << at)
                if not known:
                    continue
                generated += 1
                free = find_state(states, table, after)
                if table[free] < 0:
                    if count == states.shape[0]:
                        return FULL, count, generated, missed
                    table[free] = count
                    states[count] = after
                    parents[count] = number
                    count += 1
    return status, count, generated, missed


expand = nb.njit(cache=True)(_expand)


def _unjudged(first: Any, end: Any, width: Any, bits: Any, states: Any, views: Any, known: Any, found: Any) -> Any:
    """Find pairs of views, and views with histories, that no state before showed: (state, history or -1, view, view).

    Returns how many were found; stops early when `found` is full, and then must be called again.
    """
    field = (nb.uint64(1) << nb.uint64(bits)) - nb.uint64(1)
    fresh = 0
    for number in range(first, end):
        word = states[number]
        history = nb.int64(word >> nb.uint64(bits * width))
        for position in range(width):
            one = nb.int64(views[position, nb.int64((word >> nb.uint64(bits * position)) & field)])
            for other in range(-1, width):
                two = history
                kind = nb.uint64(1)
                if other >= 0:
                    two = nb.int64(views[other, nb.int64((word >> nb.uint64(bits * other)) & field)])
                    kind = nb.uint64(2)
                key = (kind << nb.uint64(62)) | (nb.uint64(two) << nb.uint64(30)) | nb.uint64(one)
                slot = place(known, key)
                if known[slot] == nb.uint64(0):
                    if fresh == found.shape[0]:
                        return fresh
                    known[slot] = key
                    note(found, fresh, number, other, one, two, 0)
                    fresh += 1
    return fresh


unjudged = nb.njit(cache=True)(_unjudged)

"""The naive oracle: linearizability by trying every order (Wing and Gong 1993). Slow, short, and obviously right.

The search must agree with it on every small history. It shares with the search the definition of an action, nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_checks.histories.register import CAS, NULL, READ, WRITE, Action


def linearizable(actions: Sequence[Action]) -> bool:
    """Whether some order of all required and any optional actions respects real time and explains every answer."""
    required = frozenset(index for index, action in enumerate(actions) if not action.optional)
    dead: set[tuple[frozenset[int], int]] = set()

    def explain(remaining: frozenset[int], state: int) -> bool:
        if not remaining & required:
            return True
        if (remaining, state) in dead:
            return False
        deadline = min(actions[index].ret for index in remaining)
        for index in sorted(remaining):
            action = actions[index]
            if action.call > deadline:  # another action returned before this one was invoked
                continue
            if action.kind in (READ, CAS) and action.expected != state:
                continue
            if explain(remaining - {index}, action.produced if action.kind in (WRITE, CAS) else state):
                return True
        dead.add((remaining, state))
        return False

    return explain(frozenset(range(len(actions))), NULL)

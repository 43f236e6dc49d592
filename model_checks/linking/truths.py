"""What one server and one message show of a state: truths may be unknown, and so may values.

Guards are evaluated by Kleene's three-valued logic. A guard that is true although some truths in it are unknown is true
whatever these are: so a step that is linked in the smallest network that its server's state implies is linked in every
larger one, too. Asking Python whether an unknown truth is true raises `NotLocal`.

Source: S. C. Kleene, "Introduction to Metamathematics", 1952, section 64 (strong three-valued logic).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


class NotLocal(Exception):
    """Something was read that neither the server nor a message shows: the model's action is not local."""


class Maybe:
    """The truth of what is not known. There is one: `MAYBE`."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise NotLocal("what is not known decides")

    def __repr__(self) -> str:
        return "?"


MAYBE: Final = Maybe()


class Unknown:
    """A value of which nothing is known: whether it equals or precedes another is not known."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return f"? ({self._what})"

    def _compared(self, other: object) -> Any:
        return MAYBE

    __eq__ = __ne__ = __le__ = __lt__ = __ge__ = __gt__ = _compared

    def __add__(self, other: int) -> Unknown:
        return self

    def __hash__(self) -> int:
        raise NotLocal(f"{self._what} is read")


@dataclass(frozen=True, eq=False)
class AtMost:
    """A number of which only an upper bound is known."""

    limit: int

    def __le__(self, other: Any) -> Any:
        return True if isinstance(other, int) and self.limit <= other else MAYBE

    def __lt__(self, other: Any) -> Any:
        return True if isinstance(other, int) and self.limit < other else MAYBE

    def __ge__(self, other: Any) -> Any:
        return False if isinstance(other, int) and self.limit < other else MAYBE

    def __gt__(self, other: Any) -> Any:
        return False if isinstance(other, int) and self.limit <= other else MAYBE

    def __eq__(self, other: object) -> Any:
        return False if isinstance(other, int) and self.limit < other else MAYBE

    def __ne__(self, other: object) -> Any:
        return True if isinstance(other, int) and self.limit < other else MAYBE

    def __repr__(self) -> str:
        return f"at most {self.limit}"


class Ghost:
    """A history value of which nothing is known and on which nothing may depend: equal to everything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def conjunction(*parts: Any) -> Any:
    """False if any part is, else unknown if any part is."""
    unknown = False
    for part in parts:
        if part is MAYBE:
            unknown = True
        elif not part:
            return False
    return MAYBE if unknown else True


def disjunction(*parts: Any) -> Any:
    """True if any part is, else unknown if any part is."""
    unknown = False
    for part in parts:
        if part is MAYBE:
            unknown = True
        elif part:
            return True
    return MAYBE if unknown else False


def negation(part: Any) -> Any:
    """The opposite of what is known."""
    return MAYBE if part is MAYBE else not part

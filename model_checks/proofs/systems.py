"""The systems that can be proved, by name: `static` is Raft with read-index reads, `whole` adds all the rest.

`static` is what the readable spec is linked to. Must not: build a system before it is asked for.
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs.algebra import System

NAMES: Final = ("static", "whole")


def named(name: str) -> System:
    """The system of a name in `NAMES`. Raises ValueError."""
    match name:
        case "static":
            from model_checks.proofs.reads import RAFT

            return RAFT
        case "whole":
            from model_checks.proofs.whole import WHOLE

            return WHOLE
        case _:
            raise ValueError(f"no system is called {name}; there are: {', '.join(NAMES)}")

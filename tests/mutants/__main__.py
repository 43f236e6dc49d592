"""Starts an agent with one mistake in it: `python tests/mutants NAME -server -node s1 ...`.

Used as `comitia chaos test --agent-command "python tests/mutants NAME"`, which must then say INVALID; likewise `check
sockets` and `chaos fuzz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import comitia
from tests.mutants import agent, catalog, http_agent
from tests.mutants.disk import DISK_THAT_HANGS, disk_that_hangs

MUTANTS = {**agent.MUTANTS, **catalog.MUTANTS, **http_agent.MUTANTS}


def main(arguments: list[str]) -> None:
    """Apply the named mutant, or fault of the disk, and run `comitia agent` with the remaining arguments."""
    match arguments:
        case [name, *flags] if name in MUTANTS:
            MUTANTS[name]()
        case [name, *flags] if name == DISK_THAT_HANGS:
            disk_that_hangs(flags[flags.index("-data-dir") + 1])
        case _:
            names = ", ".join([*sorted(MUTANTS), DISK_THAT_HANGS])
            sys.exit(f"usage: python tests/mutants NAME AGENT-FLAGS...   names: {names}")
    comitia.main(["agent", *flags])


if __name__ == "__main__":
    main(sys.argv[1:])

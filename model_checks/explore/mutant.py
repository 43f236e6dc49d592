"""What a mutant is: named actions of the spec replaced by broken ones, what that breaks, and where it is found."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from spec.raft.actions import ACTIONS, Action
from spec.raft.bounds import Bounds
from spec.raft.log import Log
from spec.raft.network import Protocol
from spec.raft.types import Configuration, Constants


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """A broken protocol, what it breaks, and where exploration finds it."""

    replaces: Mapping[str, Action]
    breaks: str
    """The property that exploration, watching it alone, must see broken."""
    bounds: Bounds
    start: str = "initial"
    also: tuple[str, ...] = ()
    """Rules nearer to the fault that are broken too, each found alone within the same bounds."""

    @property
    def protocol(self) -> Protocol:
        """The spec's actions with this mutant's in their place."""
        unknown = sorted(set(self.replaces).difference(ACTIONS))
        assert not unknown, f"the spec has no action {unknown}"
        return {**ACTIONS, **self.replaces}

    @property
    def meaning(self) -> str:
        """What the mutant does wrong, in a line."""
        documented = (action.__doc__ for action in self.replaces.values() if action.__doc__)
        return next(documented, "").partition("\n")[0]


class Miscounting(Constants, frozen=True):
    """Constants under which quorums of the configuration in force are counted as `counts` does."""

    counts: type[Configuration] = Configuration

    def configuration(self, log: Log) -> Configuration:
        """The configuration in force, miscounted."""
        known = super().configuration(log)
        return self.counts(known.voters, known.nonvoters)


def miscounted(action: Action, counts: type[Configuration]) -> Action:
    """`action` in a cluster where `counts` says what a quorum is."""
    return lambda c, i, s, *args: action(Miscounting(c.servers, c.voters, counts=counts), i, s, *args)

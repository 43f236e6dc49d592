"""`comitia check ...`: the group of everything that compares behaviours with the spec.

It only says where each command lives and imports it when it is asked for: `check history` must not load a solver.
Every command's callback returns its exit code (`model_checks.verdicts`); `comitia.py` sets it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

# command -> module that defines it as `command` (a click.Command)
COMMANDS = {
    "prove": "model_checks.proofs.command",
    "explore": "model_checks.explore.command",
    "link": "model_checks.linking.command",
    "stateful": "model_checks.stateful.command",
    "trace": "model_checks.conformance.command",
    "history": "model_checks.histories.command",
}


class LazyChecks(click.Group):
    """A group whose commands are imported when they are first asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command


check_command = LazyChecks(
    "check",
    help="Compare behaviours with the spec. Exit codes: 0 valid, 1 invalid, 2 unknown, 254 usage, 255 internal error.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add_from_above(modules: Mapping[str, str]) -> None:
    """Add checks that need what this folder must not know: a cluster."""
    COMMANDS.update(modules)

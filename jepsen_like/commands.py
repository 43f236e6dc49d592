"""The harness's commands, imported one at a time: `comitia cluster` must not load the checkers, nor `bench` the switch.

The root group asks this module for `NAME_command`; each lives beside what it drives. Only the table belongs here.
"""

from __future__ import annotations

import importlib

import click

MODULES = {
    "cluster_command": "jepsen_like.cluster.command",
    "chaos_command": "jepsen_like.chaos",
    "bench_command": "jepsen_like.bench.command",
    "verify_command": "jepsen_like.verify",
}


def __getattr__(name: str) -> click.Command:
    """The click command behind `NAME_command`, importing its module now (PEP 562)."""
    module = MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    command = importlib.import_module(module).command
    assert isinstance(command, click.Command)
    return command

"""`comitia cluster`: start a cluster of real processes in network namespaces, look at it, and break it by hand."""

from __future__ import annotations

import click


@click.group("cluster", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Start a cluster in network namespaces, look at it, and break it by hand."""

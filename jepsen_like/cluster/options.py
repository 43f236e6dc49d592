"""What the cluster commands share: which cluster is meant, and failures as one line. No command of its own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import click

from jepsen_like.cluster import state
from jepsen_like.cluster.api import Cluster
from jepsen_like.cluster.protocol import ClusterFailure
from jepsen_like.cluster.spec import InvalidSpec
from jepsen_like.net.addresses import UnknownNode
from jepsen_like.net.rules import InvalidRule
from model_checks.verdicts import SetupFailed

P = ParamSpec("P")
T = TypeVar("T")

name_option = click.option(
    "--name", "-n", envvar="COMITIA_CLUSTER", metavar="NAME", help="Which cluster; not needed if there is only one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def one_line_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Failures that have a text for people become click's: bad arguments (UsageError) or the rest (ClickException)."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (InvalidRule, UnknownNode, InvalidSpec) as error:
            raise click.UsageError(str(error)) from error
        except (ClusterFailure, SetupFailed) as error:
            raise click.ClickException(str(error)) from error

    return wrapped


def chosen(name: str | None) -> str:
    """The cluster meant: the one named, or the only one alive; raises ClusterFailure."""
    if name is not None:
        return name
    alive = [each for each in state.names() if state.is_alive(state.home() / each)]
    if len(alive) == 1:
        return alive[0]
    if not alive:
        raise ClusterFailure("no cluster is running; start one with `comitia cluster up`")
    raise ClusterFailure(f"several clusters are running ({', '.join(alive)}): say which with --name")


def on_cluster(name: str | None, act: Callable[[Cluster], Awaitable[T]]) -> T:
    """Attach to the cluster, act, detach."""

    async def attached() -> T:
        cluster = await Cluster.attach(chosen(name))
        try:
            return await act(cluster)
        finally:
            cluster.detach()

    return asyncio.run(attached())

"""A cluster's state for people (tables) and for programs (JSON): who leads, how far each is, who reaches whom.

Pure functions of what `api.Cluster.status` returned; nothing is asked here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from jepsen_like.cluster.api import ClusterStatus
from jepsen_like.cluster.observe import AgentView
from jepsen_like.cluster.protocol import NodeState
from jepsen_like.net.rules import CLEAR, LinkRule

STATE_STYLE = {"running": "green", "paused": "yellow", "stopped": "red", "none": "dim"}


def describe_rule(rule: LinkRule) -> str:
    """A link's rule in a few words: `cut`, `50 ms`, `50±10 ms, loss 1%`; empty for a clear link."""
    if rule.cut:
        return "cut"
    words = []
    if rule.delay_ms or rule.jitter_ms:
        jitter = f"±{rule.jitter_ms:g}" if rule.jitter_ms else ""
        words.append(f"{rule.delay_ms:g}{jitter} ms")
    for name in ("loss", "duplicate", "reorder", "corrupt", "corrupt_unseen"):
        if getattr(rule, name):
            words.append(f"{name.replace('_', ' ')} {100 * getattr(rule, name):g}%")
    if rule.rate_bytes_per_s:
        words.append(f"{rule.rate_bytes_per_s / 1e6:g} MB/s")
    return ", ".join(words)


def node_table(status: ClusterStatus) -> Table:
    """One row per node that runs an agent."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("node", "process", "role", "term", "commit", "applied", "leader", "address", "http"):
        table.add_column(heading, justify="right" if heading in ("term", "commit", "applied") else "left")
    for node in status.world.nodes:
        if node.state != "none":
            table.add_row(*_node_cells(node, status.views.get(node.name)))
    return table


def _node_cells(node: NodeState, view: AgentView | None) -> list[Text | str]:
    process = Text(node.state if node.starts < 2 else f"{node.state} (start {node.starts})", STATE_STYLE[node.state])
    place = [node.address, node.published or ""]
    if view is None:
        silent = "silent" if node.state == "running" else ""
        return [node.name, process, Text(silent, "red"), "", "", "", "", *place]
    numbers = [str(number) if number >= 0 else "" for number in (view.term, view.commit_index, view.applied_index)]
    role = Text(view.role, "bold green" if view.role == "leader" else "")
    return [node.name, process, role, *numbers, view.leader or ("" if view.role == "client" else "none"), *place]


def reach_table(status: ClusterStatus) -> Table:
    """Who reaches whom: row sends to column. `·` the link is clear, `✓` and the agent says that it is connected, `✗`
    the link is clear and the agent says that it is not; otherwise what the link's rule does.
    """
    names = [node.name for node in status.world.nodes]
    rules = {(link.source, link.target): link.rule for link in status.world.links}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="center")
    for source in names:
        view = status.views.get(source)
        cells = [_reach_cell(rules.get((source, target), CLEAR), view, target) for target in names if target != source]
        cells.insert(names.index(source), Text(" "))
        table.add_row(source, *cells)
    return table


def _reach_cell(rule: LinkRule, view: AgentView | None, target: str) -> Text:
    if rule != CLEAR:
        return Text(describe_rule(rule), "bold red" if rule.cut else "yellow")
    connected = None if view is None else view.reaches.get(target)
    if connected is None or view is None or (view.role == "client" and not connected):  # clients dial when they need to
        return Text("·", "dim")
    return Text("✓", "green") if connected else Text("✗", "red")


def exit_lines(status: ClusterStatus) -> list[str]:
    """A line for each process that ended although nobody asked it to."""
    return [
        f"{each.node} ended by itself: {_how(each.status)} (start {each.start}); see `comitia cluster logs {each.node}`"
        for each in status.world.exits
        if not each.expected
    ]


def _how(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def as_json(status: ClusterStatus) -> dict[str, Any]:
    """The same as one object; links that are clear are left out."""
    document: dict[str, Any] = msgspec.to_builtins(status)
    world = document["world"]
    clear = msgspec.to_builtins(CLEAR)
    return {
        "name": world["name"],
        "leader": status.leader,
        "nodes": [{**node, "agent": document["views"].get(node["name"])} for node in world["nodes"]],
        "links": [link for link in world["links"] if link["rule"] != clear],
        "exits": world["exits"],
    }

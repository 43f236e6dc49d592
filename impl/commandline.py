"""Flags as Consul's users type them: `-name` or `--name`, `-name value` or `-name=value`, `-flag=false`, flags first.

Click wants two dashes for long names. The words are rewritten before click parses them, for the options that a command
declares and no others, so that everything else stays click's. Source: Go's `flag` package, which Consul's CLI uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

_TRUE, _FALSE = (
    frozenset({"1", "t", "T", "true", "TRUE", "True"}),
    frozenset({"0", "f", "F", "false", "FALSE", "False"}),
)


HELP = {"help_option_names": ["-h", "-help", "--help"]}
"""Context settings of every command of Consul's."""

format_option = click.option(
    "--format", "form", type=click.Choice(["pretty", "json"]), default="pretty", help="pretty or json. Default: pretty."
)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table for people: columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def print_json(document: Any) -> None:
    """A document for machines, as Consul's commands indent it."""
    click.echo(json.dumps(document, indent=4))


class GoCommand(click.Command):
    """A command whose options are given as in Go. Declare options with two dashes; flags default to false."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite, then let click parse."""
        takes_value = {
            name.lstrip("-"): not option.is_flag
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in option.opts
        }
        return super().parse_args(ctx, list(rewrite(args, takes_value)))


def rewrite(words: Sequence[str], takes_value: dict[str, bool]) -> Iterator[str]:
    """The words with options in click's form; `takes_value` says of each option's name whether it has a value.

    As in Go, the first word that is not a flag ends the flags: what follows is arguments, dashes or not.

    Raises:
        click.UsageError: a flag that is not declared, or one with a value that is not a boolean.
    """
    rest = iter(words)
    for word in rest:
        if word == "--" or not word.startswith("-") or word == "-":
            yield "--"
            if word != "--":
                yield word
            yield from rest
            return
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name not in takes_value:
            raise click.UsageError(f"flag provided but not defined: -{name}")
        flag = f"--{name}" if len(name) > 1 else f"-{name}"
        if takes_value[name]:
            yield flag
            if equals:
                yield value
            elif (following := next(rest, None)) is not None:
                yield following
        elif not equals or value in _TRUE:
            yield flag
        elif value not in _FALSE:
            raise click.UsageError(f'invalid boolean value "{value}" for -{name}: use true or false')

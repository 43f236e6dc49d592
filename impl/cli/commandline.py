"""Flags as Consul's users type them: `-name` or `--name`, `-name value` or `-name=value`, `-flag=false`, flags first.

Click wants two dashes for long names. The words are rewritten before click parses them, for the options that a command
declares and no others, so that everything else stays click's. Source: Go's `flag` package, which Consul's CLI uses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import click

from impl.cli.absent import absent_command

_TRUE, _FALSE = (
    frozenset({"1", "t", "T", "true", "TRUE", "True"}),
    frozenset({"0", "f", "F", "false", "FALSE", "False"}),
)


HELP = {"help_option_names": ["-h", "-help", "--help"]}
"""Context settings of every command of Consul's."""

format_option = click.option(
    "--format", "form", type=click.Choice(["pretty", "json"]), default="pretty", help="pretty or json. Default: pretty."
)


class CommandError(click.ClickException):
    """An error in the words of Consul's command, printed as they are."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the text alone."""
        click.echo(self.message, file=file, err=True)


def unsigned(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Callback of options: a number of 64 bits without a sign as Go reads it; 0x2a and 0b1 are numbers, too.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        number = int(value, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise click.BadParameter(f"{value!r} is not a whole number from 0 to 2^64 - 1", context, parameter)
    return number


def read_data(data: str) -> bytes:
    """What an argument stands for: `@FILE` the content of a file, `-` standard input, anything else itself.

    Raises:
        CommandError: the file cannot be read.
    """
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise CommandError(f"Error! Failed to read file: {error}") from error


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
        words = list(rewrite(args, takes_value))
        self._count(words[words.index("--") + 1 :] if "--" in words else [])
        return super().parse_args(ctx, words)

    def _count(self, given: Sequence[str]) -> None:
        declared = [each for each in self.params if isinstance(each, click.Argument)]
        if any(each.nargs < 0 for each in declared) or len(given) <= len(declared):
            return
        expected = "1 or 2" if len(declared) == 2 else str(len(declared))
        raise CommandError(f"Too many arguments (expected {expected}, got {len(given)})")


class GoGroup(click.Group):
    """A group of Consul's commands: those that Comitia has not are refused by name."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As click's."""
        return super().get_command(ctx, cmd_name) or absent_command(f"{self.name} {cmd_name}")


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

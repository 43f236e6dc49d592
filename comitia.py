"""The `comitia` command: loads each folder's commands lazily; the only place that sets exit codes.

Exit codes of verify, check, chaos and bench: 0 valid, 1 invalid, 2 unknown (Ctrl-C too), 254 bad arguments, 255
internal or set-up error. Click by itself would exit with 2 on bad usage and 1 on a traceback, hence
`standalone_mode=False`.
Commands that Consul has too, and what is like them (`impl`), keep Consul's codes: 0, or 1 on any error.
"""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType

import click

# command -> module that defines it as `<command>_command` (a click.Command); a subset of the folders may be installed.
COMMANDS = {
    "agent": "impl.cli.agent",
    "validate": "impl.cli.agent",
    "version": "impl.cli.agent",
    "kv": "impl.cli.kv",
    "catalog": "impl.cli.registry",
    "services": "impl.cli.registry",
    "members": "impl.cli.registry",
    "info": "impl.cli.registry",
    "maint": "impl.cli.maint",
    "session": "impl.cli.session",
    "lock": "impl.cli.lock",
    "watch": "impl.cli.watch",
    "snapshot": "impl.cli.snapshot",
    "operator": "impl.cli.operator",
    "leave": "impl.cli.operator",
    "join": "impl.cli.agent_control",
    "force-leave": "impl.cli.agent_control",
    "reload": "impl.cli.agent_control",
    "monitor": "impl.cli.agent_control",
    "check": "model_checks.commands",
    "cluster": "jepsen_like.commands",
    "chaos": "jepsen_like.commands",
    "bench": "jepsen_like.commands",
    "verify": "jepsen_like.commands",
}
CHECKS = {"sockets": "jepsen_like.sockets.command"}
"""Commands of `comitia check` that need a cluster: what they check is in `model_checks`, which must not know one."""
_ABSENT = "impl.cli.absent"
CONSUL_STYLE = frozenset(name for name, module in COMMANDS.items() if module.startswith("impl."))

EXIT_UNKNOWN, EXIT_USAGE, EXIT_INTERNAL = 2, 254, 255


class LazyGroup(click.Group):
    """A group whose commands are imported when they are first asked for: `comitia agent` must not load a solver."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            try:
                absent: click.Command | None = importlib.import_module(_ABSENT).absent_command(cmd_name)
            except ImportError:  # a subset of the folders is installed
                absent = None
            return absent
        folder = importlib.import_module(module)
        command = getattr(folder, f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        if cmd_name == "check":
            folder.add_from_above(CHECKS)
        return command


def _version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """What `comitia version` says."""
    if asked:
        command = root.get_command(ctx, "version")
        assert command is not None
        command.main([], "comitia version", standalone_mode=False)
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "-help", "--help"]})
@click.option(
    *("-v", "-version", "--version"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version, and exit.",
)
def root() -> None:
    """Comitia: a Consul-compatible control plane as a formally checked reference implementation."""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Until an agent listens to signals itself, they end it as they do later: with 0."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    consul_style = bool(arguments) and arguments[0] in CONSUL_STYLE
    try:
        with _ended_by_signals() if arguments[:1] == ["agent"] else nullcontext():
            code = root.main(args=arguments, prog_name="comitia", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 1 if consul_style else (EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_INTERNAL)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 1 if consul_style else EXIT_UNKNOWN
    except Exception:
        traceback.print_exc()
        code = 1 if consul_style else EXIT_INTERNAL
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()

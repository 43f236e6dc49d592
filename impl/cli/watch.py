"""`comitia watch`: blocking queries whose answers are printed once, or given to a program whenever they change.

Flags, texts and exit codes are those of Consul's command, and so is what a program is given: the answer as JSON on its
standard input, the index in CONSUL_INDEX. An agent that cannot be asked is asked again later, ever more seldom.
*Deviation:* no events, which travel by gossip. Source: Consul, "Commands: watch", "Watches".
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import click

from impl.cli.children import Child, Told, told_to_end
from impl.cli.commandline import HELP, print_json
from impl.cli.http_client import CommandError, HttpClient, ServerCommand

WAIT_SECONDS = 300
RETRY_SECONDS = 5.0
RETRY_SECONDS_MAX = 180.0
_POLL_SECONDS = 0.05

Parameters = list[tuple[str, str]]
Flags = Mapping[str, Any]


def _given(flags: Flags, name: str, kind: str) -> str:
    if not flags[name]:
        raise CommandError(f"Must specify a single {name} to watch: -{name}, for -type={kind}")
    return quote(flags[name])


def _key(flags: Flags) -> tuple[str, Parameters]:
    return f"/v1/kv/{_given(flags, 'key', 'key')}", []


def _keyprefix(flags: Flags) -> tuple[str, Parameters]:
    return f"/v1/kv/{_given(flags, 'prefix', 'keyprefix')}", [("recurse", "")]


def _service(flags: Flags) -> tuple[str, Parameters]:
    passing = flags["passingonly"].lower()
    if passing not in ("", "0", "1", "t", "f", "true", "false"):
        raise CommandError(f"Failed to parse passingonly flag: {passing!r}: use true or false")
    parameters = [("tag", tag) for tag in flags["tag"]]
    parameters += [("passing", "")] if passing in ("1", "t", "true") else []
    return f"/v1/health/service/{_given(flags, 'service', 'service')}", parameters


def _checks(flags: Flags) -> tuple[str, Parameters]:
    if flags["service"] and flags["state"]:
        raise CommandError("Cannot specify service and state")
    if flags["service"]:
        return f"/v1/health/checks/{quote(flags['service'])}", []
    return f"/v1/health/state/{quote(flags['state'] or 'any')}", []


TYPES: dict[str, Callable[[Flags], tuple[str, Parameters]]] = {
    "key": _key,
    "keyprefix": _keyprefix,
    "services": lambda flags: ("/v1/catalog/services", []),
    "nodes": lambda flags: ("/v1/catalog/nodes", []),
    "service": _service,
    "checks": _checks,
}
"""Endpoint and parameters of each type. Raise CommandError."""


class Watch:
    """One query, asked again and again."""

    def __init__(self, client: HttpClient, kind: str, path: str, parameters: Parameters) -> None:
        """`kind`: a key of `TYPES`."""
        self.index = 0
        self._client = client
        self._kind = kind
        self._path = path
        self._parameters = parameters
        self._last: Any = None

    def next(self) -> tuple[bool, Any]:
        """Ask once, and wait for a change unless this is the first time: whether there is something new, and what.

        Raises CommandError.
        """
        waiting = [("index", str(self.index)), ("wait", f"{WAIT_SECONDS}s")] if self.index else []
        wait_seconds = WAIT_SECONDS if self.index else 0
        answer = self._client.query(
            "GET",
            self._path,
            self._parameters + waiting,
            "Error querying Consul agent: ",
            accepted=(200, 404),
            wait_seconds=wait_seconds,
        )
        first, before = not self.index, self._last
        # An index that fell means another history: begin again (Consul, "Blocking Queries").
        self.index = answer.index if answer.index >= self.index else 0
        self._last = self._shown(json.loads(answer.body) if answer.status == 200 else None)
        return first or self._last != before, self._last

    def _shown(self, document: Any) -> Any:
        return document[0] if self._kind == "key" and document else document


@click.command("watch", cls=ServerCommand, context_settings=HELP)
@click.option("--type", "kind", default="", help=f"What to watch: {', '.join(TYPES)}.")
@click.option("--key", default="", help="The key, for -type=key.")
@click.option("--prefix", default="", help="The prefix, for -type=keyprefix.")
@click.option("--service", default="", help="The service, for -type=service; optional for -type=checks.")
@click.option("--tag", multiple=True, help="Only instances with this tag, for -type=service. Repeatable.")
@click.option("--passingonly", default="", help="true: only instances whose checks pass, for -type=service.")
@click.option("--state", default="", help="Only checks in this state, for -type=checks.")
@click.option("--name", default="", help="Not here: the name of an event.")
@click.option("--filter", default="", help="Consul's filter expression: all but keys can be filtered.")
@click.option("--shell", default="true", metavar="BOOL", help="Let a shell ($SHELL) run the program. Default: true.")
@click.argument("program", nargs=-1)
def watch_command(client: HttpClient, kind: str, shell: str, program: tuple[str, ...], **flags: Any) -> int:
    """Print the answer, or run PROGRAM with it now and whenever it changes."""
    if not kind:
        raise CommandError("Watch type must be specified")
    if kind == "event":
        raise CommandError("Unsupported watch type: event: events travel by gossip, which Comitia does not have")
    if kind not in TYPES:
        raise CommandError(f"Unsupported watch type: {kind}")
    path, parameters = TYPES[kind](flags)
    if flags["filter"] and kind not in ("key", "keyprefix"):
        parameters.append(("filter", flags["filter"]))
    watch = Watch(client, kind, path, parameters)
    if not program:
        print_json(watch.next()[1])
        return 0
    client.node_name()  # later an agent that cannot be asked is asked again
    return _Handler(watch, program, shell.lower() not in ("0", "f", "false")).run()


class _Handler:
    """Runs a program for every change, until a signal ends this process or the program fails."""

    def __init__(self, watch: Watch, program: tuple[str, ...], shell: bool) -> None:
        self._watch = watch
        self._program = program
        self._shell = shell
        self._stopped = Told()
        self._code = 0

    def run(self) -> int:
        """The exit code."""
        with told_to_end() as self._stopped:
            # A blocking query cannot be interrupted: it waits in a thread that ends with the process.
            threading.Thread(target=self._loop, name="watch", daemon=True).start()
            self._stopped.wait()
        return self._code

    def _loop(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                is_new, document = self._watch.next()
                failures = 0
            except CommandError as error:
                failures += 1
                click.echo(f"consul.watch: Watch errored: {error.message}", err=True)
                self._stopped.wait(min(RETRY_SECONDS * failures**2, RETRY_SECONDS_MAX))
                continue
            if is_new and not self._handled(document):
                self._code = 1
                self._stopped.set()

    def _handled(self, document: Any) -> bool:
        try:
            child = Child(self._program, self._shell, {"CONSUL_INDEX": str(self._watch.index)}, stdin=subprocess.PIPE)
        except CommandError as error:
            click.echo(error.message, err=True)
            return False
        try:
            assert child.process.stdin is not None
            child.process.stdin.write(json.dumps(document).encode() + b"\n")
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it does not read all of it
        while child.process.poll() is None:
            if self._stopped.wait(_POLL_SECONDS):
                child.end(self._stopped)
                return True
        if why := child.failure():
            click.echo(f"Error executing handler: {why}", err=True)
        return child.process.returncode == 0

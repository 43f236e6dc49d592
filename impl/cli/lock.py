"""`comitia lock`, as Consul's command: runs a program while a session of its own holds a lock, or a semaphore's slot.

The session is renewed meanwhile, and the program is ended when it cannot be sure of the lock any more: the lock was
seen lost, or the agent could not be asked for as long as Consul's patience lasts. It is advice all the same: the lock
may go before the program is told (Consul, "Sessions": use fencing). Source: Consul, "Commands: lock".
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from impl.cli.children import Child, Told, told_to_end
from impl.cli.commandline import HELP
from impl.cli.http_client import CommandError, HttpClient, ServerCommand
from impl.cli.locks import ACQUISITION, LOCK_NAME, TTL_SECONDS, Contender, Lock, Semaphore
from impl.cli.session import create_session

CHILD_FAILED = 2
_POLL_SECONDS = 0.05


@click.command("lock", cls=ServerCommand, context_settings=HELP)
@click.option("-n", "limit", type=int, default=1, help="So many may hold it at a time: a semaphore. Default: 1.")
@click.option("--name", default="", help="Name of the session. Default: made of the program and the prefix.")
@click.option("--timeout", default="0", help="Give up waiting for the lock after so long (1s, 3h). Default: never.")
@click.option("--try", "timeout", help="The same as -timeout.")
@click.option("--monitor-retry", type=int, default=3, help="Failures to ask for the lock that are not its loss.")
@click.option("--child-exit-code", is_flag=True, help="Exit with 2 if the program failed.")
@click.option("--pass-stdin", is_flag=True, help="Give standard input to the program.")
@click.option("--shell", default="true", metavar="BOOL", help="Let a shell ($SHELL) run the program. Default: true.")
@click.option("--verbose", is_flag=True, help="Say what is being done.")
@click.argument("prefix", default="")
@click.argument("program", nargs=-1)
def lock_command(client: HttpClient, prefix: str, program: tuple[str, ...], **how: Any) -> int:
    """Run PROGRAM while holding the lock, or a slot of the semaphore, below PREFIX."""
    if how["limit"] <= 0:
        raise CommandError("Lock holder limit must be positive")
    if not prefix or not program:
        raise CommandError("Key prefix and child command must be specified")
    if how["monitor_retry"] < 0:
        raise CommandError("Number for 'monitor-retry' must be >= 0")
    prefix = prefix.removeprefix("/")
    name = how["name"] or f"Consul lock for '{' '.join(program)}' at '{prefix}'"
    timeout, shell = _seconds(how["timeout"]), _boolean("shell", how["shell"])
    client.stale = False  # as in Consul: what is read of a lock must be as the leader has it
    client.node_name()

    def say(text: str) -> None:
        if how["verbose"]:
            click.echo(text)

    lock = _contender(client, prefix.rstrip("/"), name, how["monitor_retry"], how["limit"], say)
    with told_to_end() as stopped, lock.renewed():
        say("Attempting lock acquisition")
        if not lock.acquire(stopped, time.monotonic() + timeout if timeout else None):
            raise CommandError("Shutdown triggered or timeout during lock acquisition")
        lock.watch()
        try:
            code = _run(lock, stopped, program, shell, how["pass_stdin"], say)
        finally:
            say("Cleanup succeeded" if lock.release() else "Cleanup aborted, lock in use")
    return CHILD_FAILED if code and how["child_exit_code"] else 0


def _contender(
    client: HttpClient, prefix: str, name: str, monitor_retry: int, limit: int, say: Callable[[str], None]
) -> Contender:
    wanted, failure = {"Name": name, "TTL": f"{TTL_SECONDS}s"}, f"{ACQUISITION}failed to create session: "
    if limit == 1:
        say(f"Setting up lock at path: {prefix}/{LOCK_NAME}")
        return Lock(client, prefix, create_session(client, wanted, failure), monitor_retry)
    say(f"Setting up semaphore (limit {limit}) at prefix: {prefix}")
    # The keys of contenders go with their sessions.
    session = create_session(client, wanted | {"Behavior": "delete"}, failure)
    return Semaphore(client, prefix, session, monitor_retry, limit)


def _run(
    lock: Contender,
    stopped: Told,
    program: tuple[str, ...],
    shell: bool,
    pass_stdin: bool,
    say: Callable[[str], None],
) -> int:
    """Run the program until it ends, or is ended with the lock; not 0 if it failed, or could not be started."""
    say("Starting handler")
    if pass_stdin:
        say("Stdin passed to handler process")
    try:
        stdin = sys.stdin.buffer if pass_stdin else subprocess.DEVNULL
        child = Child(program, shell, {"CONSUL_LOCK_HELD": "true"}, stdin)
    except CommandError as error:
        error.show()
        return CHILD_FAILED
    _wait(child, lock, stopped, say)
    if why := child.failure():
        click.echo(f"Error running handler: {why}", err=True)
    return child.process.returncode


def _wait(child: Child, lock: Contender, stopped: Told, say: Callable[[str], None]) -> None:
    while True:
        try:
            child.process.wait(_POLL_SECONDS)
            say("Child terminated, releasing lock")
            return
        except subprocess.TimeoutExpired:
            if not lock.lost.is_set() and not stopped.is_set():
                continue
        say("Lock lost, killing child" if lock.lost.is_set() else "Shutdown triggered, killing child")
        child.end(stopped, say)
        return


def _seconds(text: str) -> float:
    """Raises CommandError."""
    if text.startswith("-"):
        raise CommandError("Timeout must be positive")
    from impl.agent.config.validated import ConfigError, parse_duration

    try:
        return parse_duration(text)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise CommandError(f'invalid boolean value "{text}" for -{name}: use true or false')
    return text.lower() in ("true", "1", "t")

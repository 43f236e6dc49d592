"""`comitia lock`, as Consul's command, and `comitia session`, which Consul does not have.

`lock` holds a key's lock by a session of its own, which it renews, while a program runs, and ends the program when it
cannot be sure of the lock any more: the lock was seen lost, or the agent could not be asked for as long as Consul's
patience lasts. It is advice all the same: the lock may go before the program is told (Consul, "Sessions": use fencing).
Source: Consul, "Commands: lock"; the key, its flags and the protocol are those of Consul's client, so that both exclude
each other. *Deviation:* no semaphores (`-n`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import click

from impl.children import Child, told_to_end
from impl.commandline import HELP, GoCommand, columns, format_option, print_json
from impl.http_client import Answer, CommandError, HttpClient, address_option

LOCK_NAME = ".lock"
LOCK_FLAGS = 0x2DDCCBC058A50C18
"""What Consul's client stores with a key that is used as a lock."""
TTL_SECONDS = 15
WAIT_SECONDS = 15
"""Of each blocking query."""
RETRY_SECONDS = 5.0
"""After a lock was refused, for the lock-delay, say."""
MONITOR_RETRY_SECONDS = 1.0
CHILD_FAILED = 2
_POLL_SECONDS = 0.05
_FAILED = "Lock acquisition failed: failed to "


# --- session ----------------------------------------------------------------------------------------------------------


@click.group("session", context_settings=HELP)
def session_command() -> None:
    """Create, list, renew and destroy sessions."""


@session_command.command("create", cls=GoCommand)
@address_option
@click.option("--name", default="", help="A name for people.")
@click.option("--node", default="", help="Node that the session belongs to. Default: the agent's.")
@click.option("--ttl", default="", help="How long it lives without renewal, 10s to 24h. Default: for ever.")
@click.option("--lock-delay", default="", help="How long its locks stay free after it was invalidated. Default: 15s.")
@click.option("--behavior", default="", help="What becomes of its keys: release or delete. Default: release.")
@click.option("--check", multiple=True, help="A check of the node that it depends on. Repeatable. Default: serfHealth.")
def create(
    http_addr: str, name: str, node: str, ttl: str, lock_delay: str, behavior: str, check: tuple[str, ...]
) -> int:
    """Create a session and print its id."""
    fields = {"Name": name, "Node": node, "TTL": ttl, "LockDelay": lock_delay, "Behavior": behavior}
    body: dict[str, Any] = {field: value for field, value in fields.items() if value}
    if check:
        body["NodeChecks"] = list(check)
    click.echo(create_session(HttpClient(http_addr), body))
    return 0


def create_session(client: HttpClient, body: dict[str, Any]) -> str:
    """The id of a new session."""
    _, answer = client.ask("PUT", "/v1/session/create", {}, "Error creating session: ", json.dumps(body).encode())
    return str(json.loads(answer)["ID"])


@session_command.command("list", cls=GoCommand)
@address_option
@click.option("--node", default="", help="Only sessions of this node.")
@format_option
def list_sessions(http_addr: str, node: str, form: str) -> int:
    """Print the sessions."""
    path = f"/v1/session/node/{quote(node, safe='')}" if node else "/v1/session/list"
    found = json.loads(HttpClient(http_addr).ask("GET", path, {}, "Error listing sessions: ")[1])
    header = ["ID", "Name", "Node", "TTL", "Behavior"]
    rows = [header, *([each[column] or "-" for column in header] for each in found)]
    print_json(found) if form == "json" else click.echo(columns(rows))
    return 0


@session_command.command("renew", cls=GoCommand)
@address_option
@click.argument("id")
def renew(http_addr: str, id: str) -> int:
    """Give session ID its full TTL again."""
    HttpClient(http_addr).ask("PUT", f"/v1/session/renew/{quote(id, safe='')}", {}, "Error renewing session: ")
    click.echo(f"Renewed session: {id}")
    return 0


@session_command.command("destroy", cls=GoCommand)
@address_option
@click.argument("id")
def destroy(http_addr: str, id: str) -> int:
    """End session ID; its locks are given back."""
    HttpClient(http_addr).ask("PUT", f"/v1/session/destroy/{quote(id, safe='')}", {}, "Error destroying session: ")
    click.echo(f"Destroyed session: {id}")
    return 0


# --- lock -------------------------------------------------------------------------------------------------------------


class Lock:
    """The lock of one key, held or wanted by one session that this process renews."""

    def __init__(self, client: HttpClient, key: str, session: str, monitor_retry: int) -> None:
        """`monitor_retry`: failures to ask the agent in a row that are not yet the loss of the lock."""
        self.lost = threading.Event()
        """The lock is held no more, or may not be."""
        self._client = client
        self._path = f"/v1/kv/{quote(key)}"
        self._session = session
        self._monitor_retry = monitor_retry
        self._ended = threading.Event()

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """The session is renewed as long as this is open, and destroyed at its end."""
        path = quote(self._session, safe="")
        thread = threading.Thread(target=self._renew, args=(path,), name="renew", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._client.ask("PUT", f"/v1/session/destroy/{path}", {}, "Error destroying session: ")

    def _renew(self, path: str) -> None:
        while not self._ended.wait(TTL_SECONDS / 2):
            try:
                self._client.ask("PUT", f"/v1/session/renew/{path}", {}, "Error renewing session: ")
            except CommandError:
                continue  # if the session has gone, so has the lock, which the monitor sees

    def acquire(self, stopped: threading.Event, deadline: float | None) -> bool:
        """Wait for the lock; False: stopped, or not before the deadline. Raises CommandError."""
        index = 0
        while not stopped.is_set():
            wait = WAIT_SECONDS
            if deadline is not None:
                wait = min(wait, int(deadline - time.monotonic()) + 1)
                if wait <= 0:
                    return False
            answer = self._read(index, wait, f"{_FAILED}read lock")
            holder = _holder(answer)
            if holder is None:
                parameters = {"acquire": self._session, "flags": str(LOCK_FLAGS)}
                _, taken = self._client.ask("PUT", self._path, parameters, f"{_FAILED}acquire lock: ", b"")
                if taken.strip() == b"true":
                    return True
                left = RETRY_SECONDS if deadline is None else min(RETRY_SECONDS, deadline - time.monotonic())
                if stopped.wait(max(left, 0)):
                    return False
            index = answer.index if holder is not None and answer.index >= index else 0
        return False

    def watch(self) -> None:
        """Set `lost` when the lock is held no more, from a thread of its own."""
        threading.Thread(target=self._monitor, name="monitor", daemon=True).start()

    def _monitor(self) -> None:
        index = failures = 0
        while not self._ended.is_set():
            try:
                answer = self._read(index, WAIT_SECONDS, "failed to read lock", consistent=True)
                if _holder(answer) != self._session:
                    break
                index, failures = answer.index, 0
            except CommandError:
                failures += 1
                if failures > self._monitor_retry:
                    break
                self._ended.wait(MONITOR_RETRY_SECONDS)
        self.lost.set()

    def release(self) -> None:
        """Give the lock back, and remove the key unless somebody has it. Raises CommandError."""
        parameters = {"release": self._session, "flags": str(LOCK_FLAGS)}
        self._client.ask("PUT", self._path, parameters, "Lock release failed: ", b"")
        answer = self._read(0, 0, "Lock cleanup failed: failed to read lock")
        if answer.status == 200 and _holder(answer) is None:
            index = json.loads(answer.body)[0]["ModifyIndex"]
            self._client.ask("DELETE", self._path, {"cas": str(index)}, "Lock cleanup failed: ")

    def _read(self, index: int, wait: int, failure: str, consistent: bool = False) -> Answer:
        parameters = [("consistent", "")] if consistent else []
        if index:
            parameters += [("index", str(index)), ("wait", f"{wait}s")]
        return self._client.query("GET", self._path, parameters, f"{failure}: ", accepted=(200, 404), wait_seconds=wait)


def _holder(answer: Answer) -> str | None:
    """The session that has the lock. Raises CommandError if the key is not used as a lock."""
    if answer.status == 404:
        return None
    row = json.loads(answer.body)[0]
    if row["Flags"] != LOCK_FLAGS:
        raise CommandError("Lock acquisition failed: Existing key does not match lock use")
    return row.get("Session") or None


@click.command("lock", cls=GoCommand, context_settings=HELP)
@address_option
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
def lock_command(http_addr: str, prefix: str, program: tuple[str, ...], **how: Any) -> int:
    """Run PROGRAM while holding the lock below PREFIX."""
    if not prefix or not program:
        raise CommandError("Key prefix and child command must be specified")
    if how["monitor_retry"] < 0:
        raise CommandError("Number for 'monitor-retry' must be >= 0")
    prefix = prefix.removeprefix("/")
    name = how["name"] or f"Consul lock for '{' '.join(program)}' at '{prefix}'"
    timeout, shell = _seconds(how["timeout"]), _boolean("shell", how["shell"])
    client = HttpClient(http_addr)
    session = create_session(client, {"Name": name, "TTL": f"{TTL_SECONDS}s"})
    lock = Lock(client, f"{prefix.rstrip('/')}/{LOCK_NAME}", session, how["monitor_retry"])

    def say(text: str) -> None:
        if how["verbose"]:
            click.echo(text)

    with told_to_end() as stopped, lock.renewed():
        say("Attempting lock acquisition")
        if not lock.acquire(stopped, time.monotonic() + timeout if timeout else None):
            raise CommandError("Shutdown triggered or timeout during lock acquisition")
        lock.watch()
        try:
            say("Starting handler")
            code = _run(lock, stopped, program, shell, how["pass_stdin"], say)
        finally:
            lock.release()
    return CHILD_FAILED if code and how["child_exit_code"] else 0


def _run(
    lock: Lock,
    stopped: threading.Event,
    program: tuple[str, ...],
    shell: bool,
    pass_stdin: bool,
    say: Callable[[str], None],
) -> int:
    """Run the program until it ends, or is ended with the lock; its exit code."""
    stdin = sys.stdin.buffer if pass_stdin else subprocess.DEVNULL
    child = Child(program, shell, {"CONSUL_LOCK_HELD": "true"}, stdin)
    while True:
        try:
            return child.process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not lock.lost.is_set() and not stopped.is_set():
                continue
        say("Lock lost, killing child" if lock.lost.is_set() else "Shutdown triggered, killing child")
        child.end()
        return child.process.returncode


def _seconds(text: str) -> float:
    from impl.agent.config import ConfigError, parse_duration

    try:
        return parse_duration(text)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise CommandError(f'invalid boolean value "{text}" for -{name}: use true or false')
    return text.lower() in ("true", "1", "t")

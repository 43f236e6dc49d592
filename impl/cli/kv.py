"""`comitia kv`: keys, with the flags, texts and exit codes of Consul's command: 0, or 1 on any error."""

from __future__ import annotations

import base64
import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

import click
import msgspec

from impl.cli.commandline import HELP, GoGroup, read_data, unsigned
from impl.cli.http_client import CommandError, HttpClient, ServerCommand

_QUERYING = "Error querying Consul agent: "


class ExportedKey(msgspec.Struct):
    """An element of what `kv export` prints; the value in base64."""

    key: str
    flags: Annotated[int, msgspec.Meta(ge=0)] = 0
    value: str = ""


class KvClient:
    """`/v1/kv` of one agent, as the command line needs it."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def ask(
        self, method: str, key: str, parameters: dict[str, str], failure: str = _QUERYING, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body; the statuses that every command treats as errors are raised, and begin with `failure`."""
        return self._http.ask(method, f"/v1/kv/{quote(key)}", parameters, failure, body, accepted=(200, 404))


def _without_slash(key: str) -> str:
    """The key that people mean by `/a`, as Consul reads it where nothing is written."""
    return key.removeprefix("/")


def _verify_key(key: str, failure: str) -> None:
    """Raises CommandError for a key that Consul's client does not write (`KV.Put` of its Go package)."""
    if key.startswith("/"):
        raise CommandError(f"Error! {failure}: Invalid key. Key must not begin with a '/': {key}")


_consistent = click.option("--consistent", is_flag=True, help="The leader confirms that it leads before it answers.")


@click.group("kv", cls=GoGroup, context_settings=HELP)
def kv_command() -> None:
    """Read and write keys."""


@kv_command.command("get", cls=ServerCommand)
@_consistent
@click.option("--base64", "as_base64", is_flag=True, help="Print the value in base64.")
@click.option("--detailed", is_flag=True, help="Print the indexes and flags too.")
@click.option("--keys", is_flag=True, help="Print the names of the keys that start with KEY, cut at -separator.")
@click.option("--recurse", is_flag=True, help="Print every key that starts with KEY; with -keys: all names, uncut.")
@click.option("--separator", default="/", help="With -keys: where to cut names.")
@click.argument("key", default="")
def kv_get(client: HttpClient, key: str, keys: bool, recurse: bool, separator: str, **how: bool) -> int:
    """Print the value of KEY."""
    key = _without_slash(key)
    parameters = {"consistent": ""} if how["consistent"] else {}
    kv = KvClient(client)
    if keys and not (recurse and how["detailed"]):
        cut = "" if recurse else separator
        status, answer = kv.ask("GET", key, parameters | {"keys": "", "separator": cut})
        for name in json.loads(answer) if status == 200 else []:
            click.echo(name)
        return 0
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    status, answer = kv.ask("GET", key, parameters | ({"recurse": ""} if recurse else {}))
    if status == 404 and not recurse:
        raise CommandError(f"Error! No key exists at: {key}")
    for number, row in enumerate(json.loads(answer) if status == 200 else []):
        if how["detailed"] and number:
            click.echo()
        _print_row(row, recurse, how["as_base64"], how["detailed"], not keys)
    return 0


def _print_row(row: dict[str, Any], recurse: bool, as_base64: bool, detailed: bool, valued: bool) -> None:
    value = (row["Value"] or "").encode() if as_base64 else base64.b64decode(row["Value"] or "")
    if detailed:
        for name in ("CreateIndex", "Flags", "Key", "LockIndex", "ModifyIndex"):
            click.echo(f"{name:<16} {row[name]}")
        click.echo(f"{'Session':<16} {row.get('Session') or '-'}")
        value = f"{'Value':<16} ".encode() + value if valued else b""
    elif recurse:
        value = f"{row['Key']}:".encode() + value
    sys.stdout.buffer.write(value + b"\n")
    sys.stdout.flush()


@kv_command.command("put", cls=ServerCommand)
@click.option("--cas", is_flag=True, help="Only if the key's ModifyIndex is -modify-index; 0: only if it is new.")
@click.option("--modify-index", default="0", metavar="NUMBER", callback=unsigned)
@click.option("--acquire", is_flag=True, help="Take the key's lock for -session.")
@click.option("--release", is_flag=True, help="Give the key's lock back, which -session holds.")
@click.option("--session", default="", help="ID of a session, for -acquire and -release.")
@click.option(
    "--flags", default="0", metavar="NUMBER", callback=unsigned, help="A number stored with the value: 42, or 0x2a."
)
@click.option("--base64", "as_base64", is_flag=True, help="DATA is in base64.")
@click.argument("key", default="")
@click.argument("data", default="")
def kv_put(client: HttpClient, key: str, data: str, as_base64: bool, flags: int, **how: Any) -> int:
    """Set KEY to DATA: text, @FILE, or - for standard input."""
    if not key:
        raise CommandError("Error! Missing KEY argument")
    value = read_data(data)
    if as_base64:
        value = _decode(value, "Error! Cannot base 64 decode data")
    condition, refused, done = _put_condition(key, **how)
    failure = f"Did not write to {key}" if how["cas"] else "Failed writing data"
    _verify_key(key, failure)
    parameters = ({"flags": str(flags)} if flags else {}) | condition
    _, answer = KvClient(client).ask("PUT", key, parameters, f"Error! {failure}: ", value)
    if answer.strip() != b"true":
        raise CommandError(f"Error! {refused}")
    click.echo(f"Success! {done}: {key}")
    return 0


def _put_condition(
    key: str, cas: bool, modify_index: int, acquire: bool, release: bool, session: str
) -> tuple[dict[str, str], str, str]:
    """The parameters, what to say if they are not met, and if they are."""
    if cas + acquire + release > 1:
        raise CommandError("Error! Cannot specify more than one of -cas, -acquire and -release")
    if (acquire or release) and not session:
        raise CommandError("Error! Missing -session (required with -acquire and -release)")
    if acquire:
        return {"acquire": session}, "Did not acquire lock", "Lock acquired on"
    if release:
        return {"release": session}, "Did not release lock", "Lock released on"
    condition = {"cas": str(modify_index)} if cas else {}
    why = "CAS failed" if modify_index else "CAS performed with index=0 and key already exists."
    return condition, f"Did not write to {key}: {why}", "Data written to"


def _decode(value: bytes | str, failure: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise CommandError(f"{failure}: {error}") from error


@kv_command.command("delete", cls=ServerCommand)
@click.option("--cas", is_flag=True, help="Only if the key's ModifyIndex is -modify-index.")
@click.option("--modify-index", default="0", metavar="NUMBER", callback=unsigned)
@click.option("--recurse", is_flag=True, help="Delete every key that starts with KEY.")
@click.argument("key", default="")
def kv_delete(client: HttpClient, cas: bool, modify_index: int, recurse: bool, key: str) -> int:
    """Delete KEY."""
    key = _without_slash(key)
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    if cas and not modify_index:
        raise CommandError("Cannot delete a key that does not exist. Provide a -modify-index greater than than 0.")
    if modify_index and not cas:
        raise CommandError("Cannot specify -modify-index without -cas!")
    if cas and recurse:
        raise CommandError("Cannot specify both -cas and -recurse!")
    parameters = {"recurse": ""} if recurse else {"cas": str(modify_index)} if cas else {}
    failure = f"Error! Did not delete {'prefix' if recurse else 'key'} {key}: "
    _, answer = KvClient(client).ask("DELETE", key, parameters, failure)
    if answer.strip() != b"true":
        raise CommandError(f"Error! Did not delete key {key}: CAS failed")
    click.echo(f"Success! Deleted keys with prefix: {key}" if recurse else f"Success! Deleted key: {key}")
    return 0


@kv_command.command("export", cls=ServerCommand)
@click.argument("prefix", default="")
def kv_export(client: HttpClient, prefix: str) -> int:
    """Print every key that starts with PREFIX as JSON: key, flags, value in base64."""
    status, answer = KvClient(client).ask("GET", _without_slash(prefix), {"recurse": ""})
    rows = json.loads(answer) if status == 200 else []
    exported = [{"key": row["Key"], "flags": row["Flags"], "value": row["Value"] or ""} for row in rows]
    click.echo(json.dumps(exported, indent="\t"))
    return 0


@kv_command.command("import", cls=ServerCommand)
@click.option("--prefix", default="", help="Put it before every key, with a slash between if it ends with none.")
@click.argument("data", default="")
def kv_import(client: HttpClient, prefix: str, data: str) -> int:
    """Set the keys of DATA, which `kv export` printed: JSON, @FILE, or - for standard input.

    Nothing is written unless all of it can be read, and every key can be written; then one key after the other is.
    """
    # *Deviation:* since 1.10 Consul cleans what it joins as a path and loses the last slash of keys (its issue 10906).
    before = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    if not data:
        raise CommandError("Error! Missing DATA argument")
    kv = KvClient(client)
    entries = [(before + key, flags, value) for key, flags, value in _read_export(read_data(data))]
    for key, _, _ in entries:
        _verify_key(key, f"Failed writing data for key {key}")
    for key, flags, value in entries:
        failure = f"Error! Failed writing data for key {key}: "
        kv.ask("PUT", key, {"flags": str(flags)} if flags else {}, failure, value)
        click.echo(f"Imported: {key}")
    return 0


def _read_export(text: bytes) -> list[tuple[str, int, bytes]]:
    """Key, flags and value of each entry. Raises CommandError."""
    try:
        entries = msgspec.json.decode(text, type=list[ExportedKey])
    except msgspec.MsgspecError as error:
        raise CommandError(f"Cannot unmarshal data: {error}") from error
    return [
        (each.key, each.flags, _decode(each.value, f"Error base 64 decoding value for key {each.key}"))
        for each in entries
    ]

"""`comitia snapshot save | restore | inspect`: archives of the state, and a look into them.

`save` and `restore` speak to an agent. `inspect` reads archives and the snapshots that servers keep
(`raft/snapshots/*.snap`), changes nothing and needs no agent. Flags, texts and output are those of Consul's commands;
the formats of the files are not. Source: Consul, "Commands: snapshot".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec

from impl.cli.commandline import HELP, GoCommand, GoGroup, columns, format_option
from impl.cli.http_client import CommandError, HttpClient, ServerCommand

if TYPE_CHECKING:
    from impl.storage.archive import ArchiveMeta

NAMES = {"kv": "KVS"}
"""Consul's names of kinds of rows, where capitals are not enough."""
UNPACKED_MAX = 64 << 30
"""Of one's own archive, on one's own disk."""


@click.group("snapshot", cls=GoGroup, context_settings=HELP)
def snapshot_command() -> None:
    """Save, restore and inspect the state of the servers."""


# ---------------------------------------------------------------------------------------------------- save and restore


@snapshot_command.command("save", cls=ServerCommand)
@click.option(
    "--append-filename", default="", metavar="WHAT,...", help="Add version, dc, node or status to the name of FILE."
)
@click.argument("files", metavar="FILE", nargs=-1)
def save_command(client: HttpClient, append_filename: str, files: tuple[str, ...]) -> int:
    """Save the state of the servers to FILE, which is replaced once what was saved has been verified."""
    target = Path(_appended(_only(files), append_filename, client))
    with _beside(target) as directory:
        archive = directory / "unverified"
        try:
            # It may hold secrets.
            with open(archive, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                failure = "Error saving snapshot: "
                index = client.download("/v1/snapshot", {}, failure, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandError(f"Error writing unverified snapshot file: {error}") from error
        _unpacked(archive, directory, "Error verifying snapshot file: ")
        try:
            archive.replace(target)
            _sync_directory(target.parent)
        except OSError as error:
            raise CommandError(f'Error renaming "{archive}" to "{target}": {error.strerror}') from error
    click.echo(f"Saved and verified snapshot to index {index}")
    return 0


def _only(files: tuple[str, ...]) -> str:
    if not files:
        raise CommandError("Missing FILE argument")
    if len(files) > 1:
        raise CommandError(f"Too many arguments (expected 1, got {len(files)})")
    return files[0]


def _appended(file: str, what: str, client: HttpClient) -> str:
    """The name of the file with what is asked for of the agent before its extension."""
    if not what:
        return file
    failure = "Error connecting to Consul agent and fetching datacenter/version: "
    document = json.loads(client.ask("GET", "/v1/agent/self", {}, failure)[1])
    config, stats = document["Config"], document.get("Stats", {})
    leads = stats.get("raft", {}).get("state") == "Leader"
    known = {
        "version": config.get("Version"),
        "dc": config.get("Datacenter"),
        "node": config.get("NodeName"),
        "status": "leader" if leads else "follower",
    }
    asked = what.split(",")
    if unknown := [word for word in asked if word not in known]:
        raise CommandError(f"Invalid -append-filename {unknown[0]!r}: use version, dc, node, status")
    stem, extension = os.path.splitext(file)
    return "-".join([stem, *(str(text) for word, text in known.items() if word in asked and text)]) + extension


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A directory for unfinished files, in the same file system."""
    try:
        with TemporaryDirectory(prefix=".snapshot-", dir=target.parent) as directory:
            yield Path(directory)
    except OSError as error:
        raise CommandError(f"Error writing unverified snapshot file: {error}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@snapshot_command.command("restore", cls=ServerCommand)
@click.argument("files", metavar="FILE", nargs=-1)
def restore_command(client: HttpClient, files: tuple[str, ...]) -> int:
    """Put the state that was saved to FILE in the place of the servers' state."""
    path = _only(files)
    try:
        with open(path, "rb") as file:
            client.upload("/v1/snapshot", "Error restoring snapshot: ", file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: {path}: {error.strerror}") from error
    click.echo("Restored snapshot")
    return 0


# ------------------------------------------------------------------------------------------------------------- inspect


class Stats(msgspec.Struct, rename="pascal"):
    """Rows of one kind, or keys with a common prefix. `sum`: bytes of msgpack."""

    name: str
    sum: int = 0
    count: int = 0


class Contents(msgspec.Struct):
    """A whole file in numbers."""

    facts: dict[str, Any]
    """What it is of, with the names that are shown."""
    kinds: list[Stats]
    keys: list[Stats]


@snapshot_command.command("inspect", cls=GoCommand)
@format_option
@click.option("--kvdetails", is_flag=True, help="Show how much space keys take, by their prefixes.")
@click.option("--kvdepth", default=2, help="With -kvdetails: parts of a key that make a prefix. Default: 2.")
@click.option("--kvfilter", default="", help="With -kvdetails: only keys that begin with this.")
@click.argument("files", metavar="FILE", nargs=-1)
def inspect_command(form: str, kvdetails: bool, kvdepth: int, kvfilter: str, files: tuple[str, ...]) -> int:
    """Check all checksums of FILE, an archive or a server's snapshot, and print what it is of and what it holds."""
    contents = inspect(_only(files), kvdepth if kvdetails else 0, kvfilter)
    click.echo(json.dumps(_document(contents), indent=3) if form == "json" else "\n".join(_shown(contents, kvdetails)))
    return 0


def inspect(path: str, depth: int = 0, key_prefix: str = "") -> Contents:
    """Read a file to its end; keys are counted by prefixes of `depth` parts. Raises CommandError."""
    file = Path(path)
    try:
        with file.open("rb") as start:
            is_archive = start.read(2) == b"\x1f\x8b"
        if not is_archive:
            return _read(file, {"ID": file.name.removesuffix(".snap")}, depth, key_prefix)
        with TemporaryDirectory(prefix="snapshot-") as directory:
            meta, state = _unpacked(file, Path(directory), "Error reading snapshot: ")
            facts = {"ID": meta.id, "Version": meta.version, "Software": meta.software}
            return _read(state, facts, depth, key_prefix)
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: {path}: {error.strerror}") from error


def _unpacked(archive: Path, directory: Path, failure: str) -> tuple[ArchiveMeta, Path]:
    """What the archive is of, and its state file, verified. Raises CommandError."""
    from impl.agent.snapshots.archives import verify_archive
    from impl.runtime.real_disk import RealDisk
    from impl.storage.archive import BadArchive

    state = directory / "state.bin"
    try:
        meta = verify_archive(RealDisk(), str(archive), str(state), UNPACKED_MAX)
    except BadArchive as error:
        raise CommandError(f"{failure}{error}") from error
    return meta, state


def _read(path: Path, facts: dict[str, Any], depth: int, key_prefix: str) -> Contents:
    from impl.catalog.snapshot import StateDigest, UnknownRow, decode_rows, encode_rows
    from impl.catalog.tagged import KvRow
    from impl.runtime.real_disk import RealDisk
    from impl.storage.errors import StorageError
    from impl.storage.snapshots import SnapshotReader

    kinds: dict[str, Stats] = {}
    keys: dict[str, Stats] = {}
    digest = StateDigest()
    try:
        reader = SnapshotReader(RealDisk(), str(path), None)
        try:
            while (block := reader.block()) is not None:
                digest.add(block)
                for row in decode_rows(block):
                    size, kind = len(encode_rows(row)), str(row.__struct_config__.tag)
                    _count(kinds, NAMES.get(kind, kind.capitalize()), size)
                    if depth and isinstance(row, KvRow) and row.row.key.startswith(key_prefix):
                        _count(keys, "/".join(row.row.key.split("/")[:depth]), size)
        finally:
            reader.close()
    except (StorageError, UnknownRow) as error:
        raise CommandError(f"Error reading snapshot: {error}") from error
    header = reader.header
    facts |= {"Size": path.stat().st_size, "Index": header.index, "Term": header.term, "Cluster": header.cluster_id}
    facts |= {"Checksum": reader.checksum, "StateDigest": digest.hexdigest()}
    return Contents(facts, _largest_first(kinds), _largest_first(keys))


def _count(found: dict[str, Stats], name: str, size: int) -> None:
    stats = found.setdefault(name, Stats(name))
    stats.sum += size
    stats.count += 1


def _largest_first(found: dict[str, Stats]) -> list[Stats]:
    return sorted(found.values(), key=lambda stats: (-stats.sum, stats.name))


def _total(stats: Sequence[Stats]) -> int:
    return sum(each.sum for each in stats)


def _document(contents: Contents) -> dict[str, Any]:
    """Consul's; `Meta` has more."""
    return {
        "Meta": contents.facts,
        "Stats": msgspec.to_builtins(contents.kinds),
        "StatsKV": msgspec.to_builtins(contents.keys) or None,
        "TotalSize": _total(contents.kinds),
        "TotalSizeKV": _total(contents.keys),
    }


def _shown(contents: Contents, with_keys: bool) -> Sequence[str]:
    facts = columns([(name, str(value)) for name, value in contents.facts.items()])
    parts = [facts, "", _table("Type", contents.kinds)]
    return [*parts, "", _table("Key Name", contents.keys)] if with_keys else parts


def _table(title: str, stats: Sequence[Stats]) -> str:
    line = ("----", "----", "----")
    rows = [(each.name, str(each.count), byte_size(each.sum)) for each in stats]
    return columns([(title, "Count", "Size"), line, *rows, line, ("Total", "", byte_size(_total(stats)))])


def byte_size(size: int) -> str:
    """As Consul shows sizes: 12.3KB, 285B, 2KB."""
    if not size:
        return "0"
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "KB")):
        if size >= 1 << (10 * power):
            return f"{size / (1 << 10 * power):.1f}".removesuffix(".0") + unit
    return f"{size}B"

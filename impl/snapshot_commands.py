"""`comitia snapshot inspect`: what a snapshot file holds, and whether it is what was written.

It reads the files that servers keep (`raft/snapshots/*.snap`), changes nothing and needs no agent. Source: Consul,
"Commands: snapshot inspect", whose file format is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from impl.commandline import HELP, GoCommand, columns, format_option, print_json
from impl.http_client import CommandError


class Contents(msgspec.Struct):
    """A whole snapshot in numbers. `rows` and `sizes` (bytes of msgpack) are by kind."""

    id: str
    size: int
    index: int
    term: int
    cluster: str
    checksum: str
    state_digest: str
    rows: dict[str, int]
    sizes: dict[str, int]


@click.group("snapshot", context_settings=HELP)
def snapshot_command() -> None:
    """Look into snapshots of the state."""


@snapshot_command.command("inspect", cls=GoCommand)
@format_option
@click.argument("file", default="")
def inspect_command(form: str, file: str) -> int:
    """Check the checksums of snapshot FILE, and print what it is of and what it holds."""
    from impl.storage.errors import StorageError

    if not file:
        raise CommandError("Missing FILE argument")
    try:
        contents = inspect(file)
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: {file}: {error.strerror}") from error
    except StorageError as error:
        raise CommandError(f"Error reading snapshot: {error}") from error
    if form == "json":
        print_json(msgspec.to_builtins(contents))
    else:
        click.echo("\n".join(_shown(contents)))
    return 0


def inspect(path: str) -> Contents:
    """Read a snapshot to its end. Raises OSError, StorageError."""
    from impl.catalog.snapshot import StateDigest, UnknownRow, decode_rows, encode_rows
    from impl.runtime.real_disk import RealDisk
    from impl.storage.errors import CorruptSnapshot
    from impl.storage.snapshots import SnapshotReader

    reader, digest = SnapshotReader(RealDisk(), path, None), StateDigest()
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    try:
        while (block := reader.block()) is not None:
            digest.add(block)
            for row in decode_rows(block):
                kind = str(row.__struct_config__.tag)
                rows[kind] = rows.get(kind, 0) + 1
                sizes[kind] = sizes.get(kind, 0) + len(encode_rows(row))
    except UnknownRow as error:
        raise CorruptSnapshot(path, 0, str(error)) from error
    finally:
        reader.close()
    file, header = Path(path), reader.header
    return Contents(
        id=file.name.removesuffix(".snap"),
        size=file.stat().st_size,
        index=header.index,
        term=header.term,
        cluster=header.cluster_id,
        checksum=reader.checksum,
        state_digest=digest.hexdigest(),
        rows=rows,
        sizes=sizes,
    )


def _shown(contents: Contents) -> Sequence[str]:
    facts = [
        ("ID", contents.id),
        ("Size", str(contents.size)),
        ("Index", str(contents.index)),
        ("Term", str(contents.term)),
        ("Cluster", contents.cluster),
        ("Checksum", contents.checksum),
        ("State", contents.state_digest),
    ]
    table = [("Type", "Count", "Size")]
    table += [(kind, str(contents.rows[kind]), str(contents.sizes[kind])) for kind in sorted(contents.rows)]
    table.append(("Total", str(sum(contents.rows.values())), str(sum(contents.sizes.values()))))
    return [columns(facts), "", columns(table)]

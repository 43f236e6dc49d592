"""Finds anew which lemmas each obligation needs and what each lemma is needed for: writes `selection.json`.

Minutes of work, and needed only when the model changes. Must not: be part of a proof run.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

from model_checks.proofs.obligations import Obligation, obligations
from model_checks.proofs.reads import RAFT
from model_checks.proofs.selection import FILE, Selection, find_need, save, select


class NotInductive(Exception):
    """An obligation fails over small sorts with all lemmas: there is nothing to select. `check prove` shows why."""


def select_one(obligation: Obligation) -> tuple[str, tuple[str, ...] | None]:
    """For a worker process: the obligation's name and its selection."""
    return obligation.key, select(RAFT, obligation)


def need_of(lemma: str, extra: dict[str, tuple[str, ...]]) -> tuple[str, str | None]:
    """For a worker process: a lemma and an obligation that fails without it."""
    return lemma, find_need(RAFT, lemma, extra)


def rewrite_selection(jobs: int, progress: Callable[[int, int, str], None], file: Path = FILE) -> list[str]:
    """Write the selection file; returns the idle lemmas, which should be deleted. Raises NotInductive."""
    wanted = obligations(RAFT)
    extra: dict[str, tuple[str, ...]] = {}
    needed_by: dict[str, str] = {}
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for done, (key, found) in enumerate(pool.imap_unordered(select_one, wanted, chunksize=4), start=1):
            progress(done, len(wanted), key)
            if found is None:
                raise NotInductive(
                    f"{key} fails over small sorts with all lemmas; run: comitia check prove --only {key}"
                )
            if found:
                extra[key] = found
        names = [lemma.name for lemma in RAFT.lemmas]
        for lemma, key_or_none in pool.imap_unordered(partial(need_of, extra=extra), names):
            if key_or_none is not None:
                needed_by[lemma] = key_or_none
    save(Selection(extra, needed_by), file)
    return sorted(set(names) - set(needed_by))

"""Inspect the directory of the node's records, and try to write to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.node.identity import boot_id
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.hook.slurmd_gpus import read_answer
from canhazgpu.schedulers.slurm.site.file_permissions import find_closed_to_users
from canhazgpu.schedulers.slurm.site.state import StateDir

RECORD_BYTES = 2**16
"""As much as a node's book or a job's record may take."""


def inspect_state_dir(path: Path, node: str = "") -> StateDir:
    """Return the state of the directory with the node's records.

    Root writes a file there, and removes it.
    """
    jobs = path / "jobs"
    closed = find_closed_to_users(jobs if may_exist(jobs) else path)
    try:
        found = path.stat()
    except OSError:
        return StateDir(
            str(path), blocked_by=str(closed) if closed else None, write_fault=_write_fault(path)
        )
    return StateDir(
        str(path),
        found.st_uid,
        stat.S_IMODE(found.st_mode),
        str(closed) if closed else None,
        read_answer(path),
        _write_fault(path) or (_write_fault(jobs) if may_exist(jobs) else None),
        _damage(path, node),
    )


def _write_fault(directory: Path) -> str | None:
    """Return why root cannot write there, or where the directory would be made; None if it can."""
    if os.geteuid() != 0:
        return None
    place = next(one for one in (directory, *directory.parents) if may_exist(one))
    draft = place / f".canhazgpu-check.{os.getpid()}"
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        return exc.strerror
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(bytes(RECORD_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as exc:
        return exc.strerror
    finally:
        draft.unlink(missing_ok=True)
    return None


def _damage(directory: Path, node: str) -> str | None:
    """Return why what the node published cannot be read, None if it can."""
    try:
        read_published(directory, node, boot_id())
    except NodeStateError as exc:
        return str(exc)
    return None

"""Inspect the directory of the node's records, and try to write to it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.node.identity import boot_id
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import read_answer
from canhazgpu.schedulers.slurm.site.file_permissions import find_closed_to_users
from canhazgpu.schedulers.slurm.site.state import StateDir

RECORD_BYTES = 2**16
"""As much as a node's book or a job's record may take."""
MOUNTS = Path("/proc/self/mountinfo")


def inspect_state_dir(path: Path, node: str = "", marker_dir: Path | None = None) -> StateDir:
    """Return the state of the directory with the node's records, and of that with its mark.

    Root writes a file in each, and removes it.
    """
    found = _inspect(path, node, marker_dir)
    if marker_dir is None:
        return found
    return replace(found, marker_dir=str(marker_dir), marker_fault=_marker_fault(marker_dir, path))


def _inspect(path: Path, node: str, marker_dir: Path | None) -> StateDir:
    jobs = path / "jobs"
    closed = find_closed_to_users(jobs if may_exist(jobs) else path)
    try:
        found = path.stat()
    except OSError:
        return StateDir(
            str(path),
            blocked_by=str(closed) if closed else None,
            write_fault=_write_fault(path),
            damaged=_damage(path, node, marker_dir),
        )
    return StateDir(
        str(path),
        found.st_uid,
        stat.S_IMODE(found.st_mode),
        str(closed) if closed else None,
        read_answer(path),
        _write_fault(path) or (_write_fault(jobs) if may_exist(jobs) else None),
        _damage(path, node, marker_dir),
    )


def _write_fault(directory: Path) -> str | None:
    """Return why root cannot write there, or where the directory would be made; None if it can."""
    if os.geteuid() != 0:
        return None
    place = _existing(directory)
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


def _existing(directory: Path) -> Path:
    return next(one for one in (directory, *directory.parents) if may_exist(one))


def _marker_fault(marker_dir: Path, state_dir: Path) -> str | None:
    """Return why a mark is not kept there, or is lost with the records; None if it is kept."""
    if fault := _write_fault(marker_dir):
        return fault
    try:
        device = _existing(marker_dir).stat().st_dev
        if device == _existing(state_dir).stat().st_dev and _is_tmpfs(device):
            return f"it is in the same tmpfs as {state_dir}, and is lost with it"
    except OSError as exc:
        return exc.strerror
    return None


def _is_tmpfs(device: int) -> bool:
    """Return whether the file system of this device number is a tmpfs: proc(5), mountinfo."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text(errors="replace").splitlines():
        words = line.split()
        if words[2] == number and "-" in words:
            return words[words.index("-") + 1] == "tmpfs"
    return False


def _damage(directory: Path, node: str, marker_dir: Path | None) -> str | None:
    """Return why what the node published cannot be read, None if it can."""
    boot = boot_id()
    served = None if marker_dir is None else ServedBoot(marker_dir, directory, boot)
    try:
        read_published(directory, node, boot, served)
    except NodeStateError as exc:
        return str(exc)
    return None

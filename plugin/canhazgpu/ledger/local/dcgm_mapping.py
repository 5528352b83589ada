"""dcgm-exporter's files that say which jobs hold a GPU.

It reads, in the directory of ``--hpc-job-mapping-dir``, a file for each GPU: its name is the GPU's
number, each line a job's number (https://github.com/NVIDIA/dcgm-exporter, hpc.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.ledger.values import Reservation
from canhazgpu.logfmt import log_line
from canhazgpu.node.state_files import file_lock
from canhazgpu.node.system_log import write_syslog
from canhazgpu.untrusted_directory import untrusted_directory

LOCK_FILE = ".dcgm-mapping.lock"
DEADLINE_S = 1.0
"""Longest time for a few small files, in whatever file system the site keeps them."""


def keep_job_files(
    directory: Path, state_dir: Path, node: str, boot_id: str | None, scan: Scan | None
) -> None:
    """Bring the files up to date with the node's book; what fails is logged, and tried again.

    It is done by every hook that scanned the GPUs, and by the health check; without a scan that
    worked, nothing is.
    """
    if scan is None or scan.fault is not None:
        return
    try:
        with hard_deadline(DEADLINE_S), file_lock(state_dir / LOCK_FILE):
            # Of two hooks at once the last one to come here writes what both did.
            published = read_published(state_dir, node, boot_id)
            held = published.book.reservations if published else {}
            _write(directory, job_files(scan.gpus, held))
    except (CanhazgpuError, OSError) as exc:
        why = error_text(exc) if isinstance(exc, CanhazgpuError) else str(exc)
        write_syslog(log_line("job-mapping-not-written", node=node, reason=why))


def job_files(
    gpus: Iterable[GpuReading], reservations: Mapping[str, Reservation]
) -> dict[str, str]:
    """Return the content of each GPU's file by the file's name; "" for no file.

    A GPU that is divided into MIG instances has none: dcgm-exporter would give all the jobs that
    its file names to each of the instances.
    """
    files: dict[str, str] = {}
    for gpu in gpus:
        if gpu.index >= 0:
            held = None if gpu.is_mig_instance else reservations.get(gpu.uuid)
            jobs = [one.claim.job_id or "" for one in (held.holders if held else ())]
            files[str(gpu.index)] = "".join(f"{job}\n" for job in jobs if job.isdecimal())
    return files


def _write(path: Path, files: Mapping[str, str]) -> None:
    with untrusted_directory(path, makes=True) as directory:
        for name, text in files.items():
            if not text:
                directory.remove(name)
            elif directory.read(name) != text.encode():
                directory.replace(name, text.encode(), 0o644)

"""The node's own record of its jobs: ``<state_dir>/jobs/<id>.json`` and ``<id>.env``.

The record is written before anything is reserved. So the epilog knows the owner even if the prolog
was killed. The task prolog reads ``.env``, which holds plain words and no secrets, and
``<id>.warning``, a line that it shows to the job's user. Every user may read both.

Where jobs of two clusters have one number, the files of the later one are ``<id>@<cluster>…``.

Another release may have written a record: a node is upgraded and downgraded while jobs run.
Unknown fields of a record are ignored. A release whose records must not be read that way gives
them another ``format``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Any

from canhazgpu.errors import NodeStateError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.local.task_record import task_record_text
from canhazgpu.ledger.record_json import share_from_dict
from canhazgpu.ledger.values import RECORD_ERRORS, JobOwner, Share
from canhazgpu.node.boot_clock import ticks_since_boot
from canhazgpu.node.state_files import (
    NotRegularFileError,
    file_lock,
    open_directory_to_users,
    read_regular_file,
    write_atomically,
)

CLUSTER_MARK = "@"
"""Stands in a file's name between a job's number and its cluster, whose name never has it."""
FORMAT = 1
"""Format of the JSON records; a record without ``format`` has this one."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The record of a job's latest attempt on this node.

    `epilogs_owed` counts the earlier attempts on this node whose epilogs have not run yet: so
    many epilogs come that do not end this attempt. `ended` is set when the attempt is over and
    its release is not in the ledger yet. `began_ticks` is the attempt's begin in clock ticks since
    the node's boot, the unit of process start times in /proc; None if it is not known. `share` is
    the part of each GPU that the job has, None where it has them alone. `run_id` is the scheduler's
    own name of the attempt, which no other attempt has; empty if it gives none. `epilog` is the run
    of the epilog that was noted last: one that is carried out twice counts once.
    """

    owner: JobOwner
    user: str
    boot_id: str | None
    gpus: tuple[AssignedGpu, ...] = ()
    epilogs_owed: int = 0
    ended: bool = False
    began_ticks: int | None = field(default=None, compare=False)
    share: Share | None = None
    run_id: str = ""
    epilog: str = field(default="", compare=False)


class JobRecords:
    """The records of one node; every change is atomic, every method raises `NodeStateError`."""

    def __init__(self, state_dir: Path) -> None:
        self._jobs = state_dir / "jobs"

    def begin(
        self,
        owner: JobOwner,
        user: str,
        boot_id: str | None,
        positions: Collection[int] | None = None,
        run_id: str = "",
    ) -> JobOwner | None:
        """Record that this attempt begins, before anything is reserved for it.

        If an earlier attempt of the job has not had its epilog, that epilog is counted as owed.
        Repeating the call for the same attempt changes nothing. Returns the owner of the previous
        record if that was another job with the same id: a scheduler that lost its state reuses
        ids, and the GPUs of that owner are not this attempt's. `positions` are the job's GPUs;
        they and `run_id` distinguish the two jobs.
        """
        with self._locked():
            stem = self._stem(owner.job_id, owner.cluster)
            known = self._read(stem)
            if known is not None and _is_same_attempt(known, owner, user, positions, run_id):
                return None
            owed = known.epilogs_owed + int(not known.ended) if known else 0
            # An earlier attempt's GPUs must not reach a task of this one.
            self._remove_task_files(stem)
            self._write(
                stem,
                JobRecord(
                    owner,
                    user,
                    boot_id,
                    epilogs_owed=owed,
                    began_ticks=ticks_since_boot(),
                    run_id=run_id,
                ),
            )
        return known.owner if known is not None and _is_not_newer(owner, known.owner) else None

    def complete(
        self,
        owner: JobOwner,
        gpus: Sequence[AssignedGpu],
        *,
        constrained: bool,
        export: Sequence[str],
        share: Share | None = None,
    ) -> None:
        """Record the attempt's GPUs for the epilog and the task prolog.

        `export` is what `export_words` returns.
        """
        with self._locked():
            stem = self._stem(owner.job_id, owner.cluster)
            known = self._read(stem)
            if known is None or known.owner != owner:
                raise NodeStateError(f"the record of job {owner.job_id} changed under its prolog")
            text = task_record_text(gpus, export, constrained=constrained, cluster=owner.cluster)
            self._replace(self._env(stem), text)
            self._write(stem, replace(known, gpus=tuple(gpus), share=share))

    def warn(self, owner: JobOwner, line: str) -> None:
        """Keep a warning for the output of the job's batch script, if this attempt is on record."""
        with self._locked():
            stem = self._stem(owner.job_id, owner.cluster)
            known = self._read(stem)
            if known is not None and known.owner == owner and not known.ended:
                self._replace(self._warning(stem), f"{line}\n")

    def owes_epilogs(self, job_id: str, run_id: str = "", *, cluster: str = "") -> bool:
        """Return whether this may be the epilog of an earlier attempt.

        `run_id` is that of the epilog's own attempt: where the record has one too, they tell.
        """
        known = self.find(job_id, cluster)
        return known is not None and known.epilogs_owed > 0 and not (run_id and known.run_id)

    def end(
        self,
        job_id: str,
        *,
        cluster: str = "",
        last: bool = False,
        run_id: str = "",
        epilog: str = "",
    ) -> JobRecord | None:
        """Note an epilog of the job; returns the record of the attempt that it ends.

        Returns None if no prolog of the job ran here, or if the epilog belongs to an earlier
        attempt. `last` says that no epilog is owed: the job is not on this node any more. `run_id`
        is that of the epilog's attempt: where the record has one too, it alone decides. The record
        is marked as ended; `forget` removes it once the ledger has the release. `epilog` is this
        run of the epilog, empty if it is not known: the same run again changes nothing. A record
        that cannot be read is removed, and `NodeStateError` says why.
        """
        with self._locked():
            stem = self._stem(job_id, cluster)
            known = self._read(stem)
            if known is None:
                # A record that cannot be read would never be removed otherwise.
                read_error = self._read_error(stem)
                self._json(stem).unlink(missing_ok=True)
                self._remove_task_files(stem)
                if read_error:
                    raise NodeStateError(read_error)
                return None
            if epilog and known.epilog == epilog:
                return known if known.ended else None
            if not _is_ended_by(known, run_id, last=last):
                owed = max(known.epilogs_owed - 1, 0)
                self._write(stem, replace(known, epilogs_owed=owed, epilog=epilog))
                return None
            self._remove_task_files(stem)
            ended = replace(known, ended=True, epilog=epilog)
            self._write(stem, ended)
            return ended

    def close(self, owner: JobOwner) -> None:
        """Mark this attempt as ended: its epilog does not come. Other attempts stay unchanged."""
        with self._locked():
            stem = self._stem(owner.job_id, owner.cluster)
            known = self._read(stem)
            if known is not None and known.owner == owner:
                self._remove_task_files(stem)
                self._write(stem, replace(known, ended=True))

    def forget(self, owner: JobOwner) -> None:
        """Remove the record of this attempt if it has ended; other attempts stay unchanged."""
        with self._locked():
            stem = self._stem(owner.job_id, owner.cluster)
            known = self._read(stem)
            if known is not None and known.owner == owner and known.ended:
                self._json(stem).unlink(missing_ok=True)

    def has_readable(self, job_id: str, cluster: str = "") -> bool:
        """Return whether there is a readable record of the job; never raises."""
        return self.find(job_id, cluster) is not None

    def exists(self, job_id: str, cluster: str = "") -> bool:
        """Return whether there is a record of the job, readable or not; never raises."""
        return os.path.lexists(self._json(self._stem(job_id, cluster)))

    def find(self, job_id: str, cluster: str = "") -> JobRecord | None:
        """Return the record of a job, None if there is no readable one; never raises.

        Without a cluster, the job is the one whose files have the number alone.
        """
        return self._read_if_possible(self._stem(job_id, cluster))

    def find_all(self, job_id: str) -> list[JobRecord]:
        """Return the readable records of all clusters' jobs of this number; never raises."""
        try:
            stems = [path.stem for path in self._jobs.glob(f"{job_id}{CLUSTER_MARK}*.json")]
        except OSError:
            stems = []
        found = (self._read_if_possible(stem) for stem in (job_id, *sorted(stems)))
        return [record for record in found if record is not None]

    def is_current(self, owner: JobOwner, began_ticks: int | None) -> bool:
        """Return whether the record is of this attempt, which has not ended; never raises."""
        known = self.find(owner.job_id, owner.cluster)
        return (
            known is not None
            and known.owner == owner
            and not known.ended
            and known.began_ticks == began_ticks
        )

    def job_ids_by_run(self) -> dict[str, str]:
        """Return the ids of the jobs on record by their `run_id`; never raises.

        For every user: it takes no lock, since each record is replaced as a whole.
        """
        try:
            names = [path.stem for path in self._jobs.glob("*.json")]
        except OSError:
            return {}
        found = [record for name in names if (record := self._read_if_possible(name)) is not None]
        return {record.run_id: record.owner.job_id for record in found if record.run_id}

    def ended(self) -> list[JobRecord]:
        """Return the attempts that are over and whose release is not in the ledger yet."""
        return [record for record in self.all() if record.ended]

    def running(self) -> list[JobRecord]:
        """Return the attempts that no epilog has ended yet."""
        return [record for record in self.all() if not record.ended]

    def all(self) -> list[JobRecord]:
        """Return all readable records."""
        with self._locked():
            names = sorted(path.stem for path in self._jobs.glob("*.json") if path.is_file())
            records = [self._read(name) for name in names]
        return [record for record in records if record is not None]

    def _stem(self, job_id: str, cluster: str) -> str:
        """Return the name of the job's files without their ending; never raises."""
        marked = f"{job_id}{CLUSTER_MARK}{cluster}"
        if not cluster:
            return job_id
        if os.path.lexists(self._json(marked)):
            return marked
        known = self._read_if_possible(job_id)
        return job_id if known is None or known.owner.cluster == cluster else marked

    def _json(self, stem: str) -> Path:
        return self._jobs / f"{stem}.json"

    def _env(self, stem: str) -> Path:
        return self._jobs / f"{stem}.env"

    def _warning(self, stem: str) -> Path:
        return self._jobs / f"{stem}.warning"

    def _remove_task_files(self, stem: str) -> None:
        """Remove the files that the task prolog reads."""
        self._env(stem).unlink(missing_ok=True)
        self._warning(stem).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the records; turn `OSError` into `NodeStateError`."""
        try:
            # Tasks, which are their users', read the records.
            open_directory_to_users(self._jobs.parent)
            open_directory_to_users(self._jobs)
            with file_lock(self._jobs / ".lock"):
                yield
        except OSError as exc:
            raise NodeStateError(
                f"cannot keep the node's records in {exc.filename or self._jobs}: {exc.strerror}"
            ) from exc

    def _read(self, stem: str) -> JobRecord | None:
        """Return the record, None if there is no readable one."""
        try:
            record = _record_from_dict(json.loads(read_regular_file(self._json(stem))))
        except (FileNotFoundError, NotRegularFileError, AttributeError, *RECORD_ERRORS):
            return None
        owner = record.owner
        stems = (owner.job_id, f"{owner.job_id}{CLUSTER_MARK}{owner.cluster}")
        return record if stem in stems else None

    def _read_if_possible(self, stem: str) -> JobRecord | None:
        try:
            return self._read(stem)
        except OSError:
            return None

    def _read_error(self, stem: str) -> str:
        """Return why the record cannot be read; "" if there is no record."""
        path = self._json(stem)
        try:
            found = json.loads(read_regular_file(path))["format"]
        except FileNotFoundError:
            return ""
        except (NotRegularFileError, *RECORD_ERRORS):
            found = FORMAT
        why = "" if found == FORMAT else f" (format {found!r:.20}, of another release)"
        return f"{path} cannot be read{why}: its job's GPUs are released by the job's number alone"

    def _write(self, stem: str, record: JobRecord) -> None:
        self._replace(self._json(stem), json.dumps(asdict(record)))

    def _replace(self, path: Path, text: str) -> None:
        write_atomically(path, text.encode(), 0o644)


def _is_same_attempt(
    known: JobRecord,
    owner: JobOwner,
    user: str,
    positions: Collection[int] | None,
    run_id: str,
) -> bool:
    """Return whether the record is of this attempt."""
    recorded = {gpu.position for gpu in known.gpus}
    other_gpus = bool(recorded) and positions is not None and recorded != set(positions)
    other_run = bool(known.run_id and run_id) and known.run_id != run_id
    is_same_job = known.owner == owner and known.user == user
    return is_same_job and not known.ended and not other_gpus and not other_run


def _is_ended_by(known: JobRecord, run_id: str, *, last: bool) -> bool:
    """Return whether the recorded attempt is the one whose epilog this is."""
    if known.run_id and run_id:
        return known.run_id == run_id
    return last or known.epilogs_owed == 0


def _is_not_newer(owner: JobOwner, known: JobOwner) -> bool:
    return owner.cluster == known.cluster and owner.attempt <= known.attempt


def _record_from_dict(data: dict[str, Any]) -> JobRecord:
    if data.get("format", FORMAT) != FORMAT:
        raise ValueError("a record of another release")
    owner = JobOwner(**_known_fields(JobOwner, data.pop("owner")))
    gpus = tuple(AssignedGpu(**_known_fields(AssignedGpu, gpu)) for gpu in data.pop("gpus"))
    share = share_from_dict(data.pop("share", None))
    record = JobRecord(owner=owner, gpus=gpus, share=share, **_known_fields(JobRecord, data))
    if type(record.epilogs_owed) is not int or type(record.ended) is not bool:
        raise TypeError("a record's count of epilogs and its end have their types")
    if record.began_ticks is not None and type(record.began_ticks) is not int:
        raise TypeError("the time when an attempt began is a number of ticks")
    if not isinstance(record.run_id, str) or not isinstance(record.epilog, str):
        raise TypeError("the names of an attempt and of its epilog are text")
    if type(owner.attempt) is not int or not isinstance(owner.cluster, str):
        raise TypeError("an owner's attempt is a number, and its cluster text")
    return record


def _known_fields(
    kind: type[JobOwner | AssignedGpu | JobRecord], data: dict[str, Any]
) -> dict[str, Any]:
    """Return the items of `data` that are fields of the dataclass `kind`."""
    return {one.name: data[one.name] for one in fields(kind) if one.name in data}

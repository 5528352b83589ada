"""The node's own record of its jobs: ``<state_dir>/jobs/<id>.json`` and ``<id>.env``.

The record is written before anything is reserved, so that whatever happens to a prolog, the epilog
knows the owner. ``.env`` is for the task prolog: plain words, no secrets, readable by every user;
so is ``<id>.warning``, a line that it shows the job's user.

Another release may have written the record, as a node is upgraded, and downgraded, under running
jobs. What a record has beside what is known here means nothing here. A release whose records are
not to be read that way gives them a ``format`` of their own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from canhazgpu.errors import NodeStateError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.values import RECORD_ERRORS, JobOwner
from canhazgpu.node.boot_clock import ticks_since_boot
from canhazgpu.node.state_files import file_lock, make_directory, write_atomically

FORMAT = 1
"""Of the records in JSON, where they do not say another."""
ENV_FORMAT = "canhazgpu 1"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What this node knows of a job's latest attempt on it.

    `epilogs_owed` counts the earlier attempts on this node whose epilogs have not run yet: that
    many epilogs are not this attempt's end. `ended` is set when the attempt is over but its
    release did not reach the ledger. `began_ticks` is when it began, in clock ticks since the
    node's boot, as /proc counts the start of processes; None where that is not known.
    """

    owner: JobOwner
    user: str
    boot_id: str | None
    gpus: tuple[AssignedGpu, ...] = ()
    epilogs_owed: int = 0
    ended: bool = False
    began_ticks: int | None = field(default=None, compare=False)


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
    ) -> JobOwner | None:
        """Record that this attempt begins, before it holds anything.

        An earlier attempt of the same job whose epilog has not run yet stays owed one. Repeating
        it for the same attempt changes nothing. Returns whom the record named, where that was
        another job of the same number, as after the scheduler lost its state and counts anew:
        what that one held is not this attempt's. `positions` help to tell the two apart.
        """
        with self._locked():
            known = self._read(owner.job_id)
            if known is not None and _is_same_attempt(known, owner, user, positions):
                return None
            owed = known.epilogs_owed + int(not known.ended) if known else 0
            # An earlier attempt's GPUs must not reach a task of this one.
            self._remove_task_files(owner.job_id)
            self._write(
                JobRecord(owner, user, boot_id, epilogs_owed=owed, began_ticks=ticks_since_boot())
            )
        return known.owner if known is not None and _is_not_newer(owner, known.owner) else None

    def complete(
        self, owner: JobOwner, gpus: Sequence[AssignedGpu], *, constrained: bool, export: str
    ) -> None:
        """Record the GPUs granted to this attempt, for the epilog and the task prolog."""
        with self._locked():
            known = self._read(owner.job_id)
            if known is None or known.owner != owner:
                raise NodeStateError(f"the record of job {owner.job_id} changed under its prolog")
            self._replace(self._env(owner.job_id), _env_text(gpus, constrained, export))
            self._write(replace(known, gpus=tuple(gpus)))

    def warn(self, owner: JobOwner, line: str) -> None:
        """Keep a line for the output of the job's batch script; of this attempt alone."""
        with self._locked():
            known = self._read(owner.job_id)
            if known is not None and known.owner == owner and not known.ended:
                self._replace(self._warning(owner.job_id), f"{line}\n")

    def owes_epilogs(self, job_id: str) -> bool:
        """Tell whether an earlier attempt's epilog may still come."""
        try:
            known = self._read(job_id)
        except OSError:
            return False
        return known is not None and known.epilogs_owed > 0

    def end(self, job_id: str, *, last: bool = False) -> JobRecord | None:
        """Note an epilog of the job; returns the record whose attempt is thereby over.

        `last` says that the job is not on this node any more, whatever epilogs are still owed.

        None where no prolog of the job ran here, or where the epilog is an earlier attempt's. The
        record is marked ended, not removed: `forget` does that once the ledger knows. One that
        cannot be read is removed, and `NodeStateError` says why.
        """
        with self._locked():
            known = self._read(job_id)
            if known is None:
                # One that cannot be read would stay for ever.
                read_error = self._read_error(job_id)
                self._json(job_id).unlink(missing_ok=True)
                self._remove_task_files(job_id)
                if read_error:
                    raise NodeStateError(read_error)
                return None
            if known.epilogs_owed > 0 and not last:
                self._write(replace(known, epilogs_owed=known.epilogs_owed - 1))
                return None
            self._remove_task_files(job_id)
            ended = replace(known, ended=True)
            self._write(ended)
            return ended

    def close(self, owner: JobOwner) -> None:
        """End this attempt, whose epilog does not come; another attempt's record is left alone."""
        with self._locked():
            known = self._read(owner.job_id)
            if known is not None and known.owner == owner:
                self._remove_task_files(owner.job_id)
                self._write(replace(known, ended=True))

    def forget(self, owner: JobOwner) -> None:
        """Remove the record of an ended attempt; another attempt's is left alone."""
        with self._locked():
            known = self._read(owner.job_id)
            if known is not None and known.owner == owner and known.ended:
                self._json(owner.job_id).unlink(missing_ok=True)

    def has_readable(self, job_id: str) -> bool:
        """Tell whether the node has a record of the job that can be read; never raises."""
        try:
            return self._read(job_id) is not None
        except OSError:
            return False

    def exists(self, job_id: str) -> bool:
        """Tell whether there is a record of the job, readable or not; never raises."""
        return self._json(job_id).exists()

    def find(self, job_id: str) -> JobRecord | None:
        """Return the record of a job, None where there is none that can be read; never raises."""
        try:
            return self._read(job_id)
        except OSError:
            return None

    def ended(self) -> list[JobRecord]:
        """Return the attempts that are over but whose release has not reached the ledger."""
        return [record for record in self.all() if record.ended]

    def running(self) -> list[JobRecord]:
        """Return the attempts whose end no epilog has told yet."""
        return [record for record in self.all() if not record.ended]

    def all(self) -> list[JobRecord]:
        """Return every record that can be read."""
        with self._locked():
            names = sorted(path.stem for path in self._jobs.glob("*.json") if path.is_file())
            records = [self._read(name) for name in names]
        return [record for record in records if record is not None]

    def _json(self, job_id: str) -> Path:
        return self._jobs / f"{job_id}.json"

    def _env(self, job_id: str) -> Path:
        return self._jobs / f"{job_id}.env"

    def _warning(self, job_id: str) -> Path:
        return self._jobs / f"{job_id}.warning"

    def _remove_task_files(self, job_id: str) -> None:
        """Take away what the task prolog reads."""
        self._env(job_id).unlink(missing_ok=True)
        self._warning(job_id).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the node's lock for a few file operations; translates what they raise."""
        try:
            make_directory(self._jobs)
            with file_lock(self._jobs / ".lock"):
                yield
        except OSError as exc:
            raise NodeStateError(
                f"cannot keep the node's records in {self._jobs}: {exc.strerror}"
            ) from exc

    def _read(self, job_id: str) -> JobRecord | None:
        """Return the record; one that cannot be read as ours counts as none."""
        try:
            record = _record(json.loads(self._json(job_id).read_text("utf-8")))
        except (FileNotFoundError, AttributeError, *RECORD_ERRORS):
            return None
        return record if record.owner.job_id == job_id else None

    def _read_error(self, job_id: str) -> str:
        """Say why the record cannot be read, "" where there is none."""
        path = self._json(job_id)
        try:
            found = json.loads(path.read_bytes())["format"]
        except FileNotFoundError:
            return ""
        except RECORD_ERRORS:
            found = FORMAT
        why = "" if found == FORMAT else f" (format {found!r:.20}, of another release)"
        return f"{path} cannot be read{why}: its job's GPUs are released by the job's number alone"

    def _write(self, record: JobRecord) -> None:
        self._replace(self._json(record.owner.job_id), json.dumps(asdict(record)))

    def _replace(self, path: Path, text: str) -> None:
        write_atomically(path, text.encode(), 0o644)


def _is_same_attempt(
    known: JobRecord, owner: JobOwner, user: str, positions: Collection[int] | None
) -> bool:
    """Tell whether the attempt on record is this one, which has begun before."""
    recorded = {gpu.position for gpu in known.gpus}
    other_gpus = bool(recorded) and positions is not None and recorded != set(positions)
    return known.owner == owner and known.user == user and not known.ended and not other_gpus


def _is_not_newer(owner: JobOwner, known: JobOwner) -> bool:
    return owner.cluster == known.cluster and owner.attempt <= known.attempt


def _record(data: dict[str, Any]) -> JobRecord:
    if data.get("format", FORMAT) != FORMAT:
        raise ValueError("a record of another release")
    owner = JobOwner(**_known_fields(JobOwner, data.pop("owner")))
    gpus = tuple(AssignedGpu(**_known_fields(AssignedGpu, gpu)) for gpu in data.pop("gpus"))
    record = JobRecord(owner=owner, gpus=gpus, **_known_fields(JobRecord, data))
    if type(record.epilogs_owed) is not int or type(record.ended) is not bool:
        raise TypeError("a record's count of epilogs and its end have their types")
    if record.began_ticks is not None and type(record.began_ticks) is not int:
        raise TypeError("the time when an attempt began is a number of ticks")
    if type(owner.attempt) is not int or not isinstance(owner.cluster, str):
        raise TypeError("an owner's attempt is a number, and its cluster text")
    return record


def _known_fields(
    kind: type[JobOwner | AssignedGpu | JobRecord], data: dict[str, Any]
) -> dict[str, Any]:
    """Return what a value of this kind takes of the data."""
    return {one.name: data[one.name] for one in fields(kind) if one.name in data}


def _env_text(gpus: Sequence[AssignedGpu], constrained: bool, export: str) -> str:
    lines = [ENV_FORMAT, f"constrained {int(constrained)}", f"export {export}"]
    lines += [
        f"gpu {gpu.position} {gpu.uuid} {gpu.index} {gpu.device_file or '-'}"
        for gpu in sorted(gpus, key=lambda gpu: gpu.position)
    ]
    return "\n".join(lines) + "\n"

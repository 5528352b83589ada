"""The node's own record of its jobs: ``<state_dir>/jobs/<id>.json`` and ``<id>.env``.

The record is written before anything is reserved. So the epilog knows the owner even if the prolog
was killed. The task prolog reads ``.env``, which holds plain words and no secrets, and
``<id>.warning``, a line that it shows to the job's user. Every user may read both.

Another release may have written a record: a node is upgraded and downgraded while jobs run.
Unknown fields of a record are ignored. A release whose records must not be read that way gives
them another ``format``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import NodeStateError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.local.jobs.job_files import CLUSTER_MARK, JobFiles
from canhazgpu.ledger.local.jobs.job_record import (
    JobRecord,
    is_ended_by,
    is_not_newer,
    is_same_attempt,
)
from canhazgpu.ledger.local.jobs.task_record import task_record_text
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Share
from canhazgpu.node.boot_clock import ticks_since_boot


class JobRecords:
    """The records of one node; every change is atomic, every method raises `NodeStateError`."""

    def __init__(self, state_dir: Path) -> None:
        self._files = JobFiles(state_dir)

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
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is not None and is_same_attempt(known, owner, user, positions, run_id):
                return None
            owed = known.epilogs_owed + int(not known.ended) if known else 0
            # An earlier attempt's GPUs must not reach a task of this one.
            self._files.remove_task_files(stem)
            self._files.write(
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
        return known.owner if known is not None and is_not_newer(owner, known.owner) else None

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
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is None or known.owner != owner:
                raise NodeStateError(f"the record of job {owner.job_id} changed under its prolog")
            text = task_record_text(gpus, export, constrained=constrained, cluster=owner.cluster)
            self._files.write_text(self._files.env_path(stem), text)
            self._files.write(stem, replace(known, gpus=tuple(gpus), share=share))

    def decide(self, owner: JobOwner) -> None:
        """Note that a policy decided about this attempt, if it has no GPUs on record."""
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is not None and known.owner == owner and not known.gpus:
                self._files.write(stem, replace(known, is_decided=True))

    def warn(self, owner: JobOwner, line: str) -> None:
        """Keep a warning for the output of the job's batch script, if this attempt is on record."""
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is not None and known.owner == owner and not known.ended:
                self._files.write_text(self._files.warning_path(stem), f"{line}\n")

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
        with self._files.locked():
            stem = self._files.stem(job_id, cluster)
            known = self._files.read(stem)
            if known is None:
                # A record that cannot be read would never be removed otherwise.
                read_error = self._files.read_error(stem)
                self._files.record_path(stem).unlink(missing_ok=True)
                self._files.remove_task_files(stem)
                if read_error:
                    raise NodeStateError(read_error)
                return None
            if epilog and known.epilog == epilog:
                return known if known.ended else None
            if not is_ended_by(known, run_id, last=last):
                owed = max(known.epilogs_owed - 1, 0)
                self._files.write(stem, replace(known, epilogs_owed=owed, epilog=epilog))
                return None
            self._files.remove_task_files(stem)
            ended = replace(known, ended=True, epilog=epilog)
            self._files.write(stem, ended)
            return ended

    def close(self, owner: JobOwner) -> None:
        """Mark this attempt as ended: its epilog does not come. Other attempts stay unchanged."""
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is not None and known.owner == owner:
                self._files.remove_task_files(stem)
                self._files.write(stem, replace(known, ended=True))

    def forget(self, owner: JobOwner) -> None:
        """Remove the record of this attempt if it has ended; other attempts stay unchanged."""
        with self._files.locked():
            stem = self._files.stem(owner.job_id, owner.cluster)
            known = self._files.read(stem)
            if known is not None and known.owner == owner and known.ended:
                self._files.record_path(stem).unlink(missing_ok=True)

    def has_readable(self, job_id: str, cluster: str = "") -> bool:
        """Return whether there is a readable record of the job; never raises."""
        return self.find(job_id, cluster) is not None

    def exists(self, job_id: str, cluster: str = "") -> bool:
        """Return whether there is a record of the job, readable or not; never raises."""
        return os.path.lexists(self._files.record_path(self._files.stem(job_id, cluster)))

    def find(self, job_id: str, cluster: str = "") -> JobRecord | None:
        """Return the record of a job, None if there is no readable one; never raises.

        Without a cluster, the job is the one whose files have the number alone.
        """
        return self._files.read_if_possible(self._files.stem(job_id, cluster))

    def find_all(self, job_id: str) -> list[JobRecord]:
        """Return the readable records of all clusters' jobs of this number; never raises."""
        try:
            stems = self._files.stems(f"{job_id}{CLUSTER_MARK}*")
        except OSError:
            stems = []
        found = (self._files.read_if_possible(stem) for stem in (job_id, *stems))
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
            names = self._files.stems()
        except OSError:
            return {}
        found = [
            record for name in names if (record := self._files.read_if_possible(name)) is not None
        ]
        return {record.run_id: record.owner.job_id for record in found if record.run_id}

    def ended(self) -> list[JobRecord]:
        """Return the attempts that are over and whose release is not in the ledger yet."""
        return [record for record in self.all() if record.ended]

    def running(self) -> list[JobRecord]:
        """Return the attempts that no epilog has ended yet."""
        return [record for record in self.all() if not record.ended]

    def all(self) -> list[JobRecord]:
        """Return all readable records."""
        with self._files.locked():
            names = self._files.stems()
            records = [self._files.read(name) for name in names]
        return [record for record in records if record is not None]

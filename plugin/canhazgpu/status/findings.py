"""The findings of a node health check: what is wrong with the GPUs, and what to do; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field
from enum import IntEnum

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.health import (
    count_whole_gpus,
    find_lost_gpus,
    missing_gpus_text,
    unhealthy_gpus,
)
from canhazgpu.gpu.process_job import job_text
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import (
    Usage,
    UsagePolicy,
    judge_usage,
    memory_text,
    processes_text,
    users_text,
)
from canhazgpu.status.node_status import IMPOSSIBLE_VALUES, NO_UUID, GpuStatus, NodeStatus

MAX_PIDS_IN_ADVICE = 8
QUARANTINED_BY_HEALTH = "health"


class Verdict(IntEnum):
    """The severity of a finding; the values are exit codes, those of Nagios' plugins."""

    CLEAN = 0
    UNRESERVED = 1
    UNHEALTHY = 2
    CANNOT_TELL = 3


BY_SEVERITY = (Verdict.CLEAN, Verdict.UNRESERVED, Verdict.CANNOT_TELL, Verdict.UNHEALTHY)
"""The worst last. A known fault outweighs whatever cannot be told; what cannot be told may be worse
than unreserved use."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: of a GPU, or of the node where `display_index` and `uuid` are empty.

    `what` is the fact, `advice` the next step, `user` the user concerned. A finding with the
    verdict `CLEAN` is only information.
    """

    verdict: Verdict
    what: str
    advice: str = ""
    display_index: str = ""
    uuid: str = ""
    user: str = ""

    @property
    def headline(self) -> str:
        """The fact, with the GPU."""
        if not self.display_index and not self.uuid:
            return self.what
        return f"GPU {self.display_index or '?'} ({self.uuid or 'no UUID'}): {self.what}"

    @property
    def text(self) -> str:
        """The finding as one line, with the next step."""
        return f"{self.headline} -> {self.advice}" if self.advice else self.headline


def worst_verdict(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict of the findings."""
    return max((one.verdict for one in findings), key=BY_SEVERITY.index, default=Verdict.CLEAN)


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a scan is compared with.

    `gpus` is how many GPUs the node should have; MIG instances count as the GPU that they divide.
    0 means that the number is not known. A node without GPUs then cannot be judged, unless
    `may_lack_gpus`. `known_gpus` are those that the node had (UUID to index): without `gpus` it
    should have as many.
    """

    policy: UsagePolicy
    health_checks: Collection[str]
    gpus: int = 0
    may_lack_gpus: bool = False
    known_gpus: Mapping[str, int] = field(default_factory=dict)

    @property
    def gpu_count(self) -> int:
        """How many GPUs the node should have, or had; 0 where that is not known."""
        return self.gpus or len(self.known_gpus)


def scan_findings(scan: Scan, expected: Expectations) -> list[Finding]:
    """Return the findings of the scan alone: lost, unhealthy and unreadable GPUs."""
    found = [*_node_findings(scan, expected)]
    unhealthy = unhealthy_gpus(scan.gpus, expected.health_checks)
    for gpu in scan.gpus:
        found += _reading_findings(gpu, expected.policy, unhealthy.get(gpu.uuid))
    if count_whole_gpus(scan.gpus) < expected.gpu_count:
        for uuid, index in find_lost_gpus(expected.known_gpus, scan).items():
            found.append(_lost_gpu_finding(uuid, str(index), "was there before, and is gone"))
    return found


def ledger_findings(
    status: NodeStatus, policy: UsagePolicy, unhealthy: Collection[str]
) -> list[Finding]:
    """Return the findings of the ledger: unreserved use, quarantines, GPUs that only it knows.

    `policy` is the one that judged the status. `unhealthy` are the GPUs (UUIDs) that the findings
    of the scan name already.
    """
    found: list[Finding] = []
    for gpu in status.gpus:
        if gpu.uuid in unhealthy:
            pass
        elif gpu.reading is None and status.fault is None:
            what = f"{_held_text(gpu)}, but not found by the scan"
            found.append(_lost_gpu_finding(gpu.uuid, _display_index(gpu), what))
        else:
            found += _quarantine_findings(gpu)
        found += _use_findings(gpu, policy)
    return found


def _node_findings(scan: Scan, expected: Expectations) -> Iterator[Finding]:
    known_empty = expected.may_lack_gpus and not expected.known_gpus
    if scan.fault is not None:
        if not known_empty:
            yield Finding(Verdict.CANNOT_TELL, scan.fault, "compare with 'nvidia-smi'")
    elif text := missing_gpus_text(expected.gpu_count, count_whole_gpus(scan.gpus)):
        yield Finding(
            Verdict.UNHEALTHY, text, "see 'nvidia-smi -L' and 'dmesg', or reboot the node"
        )
    elif not scan.gpus and not known_empty:
        advice = "give --expected-gpus, which may be 0"
        yield Finding(Verdict.CANNOT_TELL, "there is no GPU, and nothing says how many", advice)


def _reading_findings(
    gpu: GpuReading, policy: UsagePolicy, unhealthy: str | None
) -> Iterator[Finding]:
    if gpu.fault is not None or not gpu.uuid:
        what = f"cannot be read: {gpu.fault or NO_UUID}"
        yield Finding(Verdict.UNHEALTHY, what, "see 'dmesg'", gpu.display_index, gpu.uuid)
    elif judge_usage(gpu, policy) is Usage.UNKNOWN:
        advice = "compare with 'nvidia-smi', update the driver"
        yield Finding(Verdict.CANNOT_TELL, IMPOSSIBLE_VALUES, advice, gpu.display_index, gpu.uuid)
    if unhealthy:
        yield Finding(Verdict.UNHEALTHY, f"unhealthy: {unhealthy}", "", gpu.display_index, gpu.uuid)


def _lost_gpu_finding(uuid: str, display_index: str, what: str) -> Finding:
    advice = (
        "see 'nvidia-smi -L' and 'dmesg', reboot the node; if it was taken out: 'canhazgpu validate"
        " --publish --expected-gpus N', and 'canhazgpu admin release' or 'unquarantine' it"
    )
    return Finding(Verdict.UNHEALTHY, what, advice, display_index, uuid)


def _held_text(gpu: GpuStatus) -> str:
    if gpu.reservation is not None:
        return f"is reserved by {_holder_users_text(gpu)}"
    return "is quarantined"


def _holder_users_text(gpu: GpuStatus) -> str:
    return ",".join(dict.fromkeys(one.claim.user for one in gpu.holders)) or "nobody"


def _quarantine_findings(gpu: GpuStatus) -> Iterator[Finding]:
    held = gpu.quarantine
    if held is None:
        return
    what = f"quarantined by {held.by}: {held.reason}"
    verdict, advice = Verdict.UNHEALTHY, ""
    if held.by != QUARANTINED_BY_HEALTH:
        verdict = Verdict.CLEAN
        advice = f"when it is well: canhazgpu admin unquarantine {_display_index(gpu) or gpu.uuid}"
    elif gpu.reading is not None and gpu.reading.fault is None:
        advice = "it is well now, which the next published scan says: canhazgpu validate --publish"
    yield Finding(verdict, what, advice, _display_index(gpu), gpu.uuid)


def _use_findings(gpu: GpuStatus, policy: UsagePolicy) -> Iterator[Finding]:
    reading = gpu.reading
    if reading is None or reading.fault is not None or not reading.uuid:
        return
    if gpu.reservation is None and gpu.usage is Usage.IN_USE:
        amount = reading.held_memory_mb
        used = "memory unknown" if amount is None else memory_text(amount)
        counting = policy.counted_processes(reading.processes)
        yield _unreserved_use_finding(gpu, counting, f"{used} used")
    elif gpu.intruders:
        how = f"reserved by {_holder_users_text(gpu)}, used"
        yield _unreserved_use_finding(gpu, gpu.intruders, how)
    for process in gpu.others.unidentified:
        yield _unidentified_job_finding(gpu, process)


def _unidentified_job_finding(gpu: GpuStatus, process: GpuProcess) -> Finding:
    holder = _holder_users_text(gpu)
    user = users_text((process,))
    job = job_text(process.job) if process.job else "job"
    what = f"reserved by {holder}, used by {user}: {processes_text((process,))}, in an {job}"
    advice = "compare with the scheduler's jobs on this node"
    return Finding(Verdict.CANNOT_TELL, what, advice, _display_index(gpu), gpu.uuid, user)


def _unreserved_use_finding(gpu: GpuStatus, processes: tuple[GpuProcess, ...], how: str) -> Finding:
    user = users_text(processes)
    by = f" by {processes_text(processes)}" if processes else " by no process shown"
    what = f"in use by {user} WITHOUT RESERVATION: {how}{by}"
    advice = _unreserved_use_advice(gpu, processes)
    return Finding(Verdict.UNRESERVED, what, advice, _display_index(gpu), gpu.uuid, user)


def _unreserved_use_advice(gpu: GpuStatus, processes: tuple[GpuProcess, ...]) -> str:
    """Return who does what next: one user by name, several as "each user"."""
    if not processes:
        return "look for it as root, and in containers: 'nvidia-smi', 'fuser -v /dev/nvidia*'"
    users = {one.user for one in processes if one.user is not None}
    nameless = [one.pid for one in processes if one.user is None]
    steps = []
    if nameless:
        pids = ",".join(map(str, nameless[:MAX_PIDS_IN_ADVICE]))
        steps.append(f"see whose process it is, as root: 'ps -o user,pid,args -p {pids}'")
    if users:
        one_user = len(users) == 1
        steps.append(f"{min(users)} ends it" if one_user else "each user ends their own processes")
        if gpu.reservation is None:
            # Without --force the user would get another GPU, because this one is in use.
            taker = "" if one_user else "one of them "
            name = _display_index(gpu) or gpu.uuid
            steps[-1] += f", or {taker}takes the GPU: canhazgpu reserve --force --gpu-ids {name}"
    return "; ".join(steps)


def _display_index(gpu: GpuStatus) -> str:
    if gpu.reading is not None:
        return gpu.reading.display_index
    return "" if gpu.index is None else str(gpu.index)

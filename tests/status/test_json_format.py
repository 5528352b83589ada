"""The JSON form, key by key: programs rely on it."""

from __future__ import annotations

import json
from dataclasses import replace

from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.json_format import iso_time, status_to_dict
from canhazgpu.status.node_status import node_status

CLAIM = Claim(
    "job:c:5:0", "slurm", "alice", 1000, job_id="5", job_name="train", ends_at=1700003600.0,
    note="a note",
)  # fmt: skip
PROCESSES = (
    GpuProcess(7, 1000, "alice", "py", 8, "meta-llama/Llama-2-7b-chat-hf", "slurm:5", (1,)),
    GpuProcess(8, 1001, "bob", "x", None),
    GpuProcess(9, 0, "root", "Xorg", 3),
)
SEEN = GpuReading(
    0, "MIG-a", 0, "H100", 9000, 80000, PROCESSES, None,
    GpuHealth(recovery_action="none", ecc_uncorrected=0), 1, "GPU-p",
    utilization_percent=87,
)  # fmt: skip
VIEW = NodeView(
    "n1",
    1700000060.5,
    Scan("n1", 0.0, 0.1, (SEEN,)),
    1700000050.0,
    {"MIG-a": Reservation("MIG-a", CLAIM, 1700000000.0, renewed_at=1700000030.0)},
    {},
    {"MIG-a": Quarantine("MIG-a", "fan", 1700000000.0, "root")},
    (Waiter("run:1", "carol", 5, 2, ("MIG-a",), since=1700000000.0, renewed_at=1700000060.0),),
)
POLICY = UsagePolicy(1024, frozenset({"Xorg"}))


def process(pid: int, user: str, name: str, memory_mb: int | None, **more: object) -> object:
    known = {"pid": pid, "user": user, "name": name, "memory_mb": memory_mb}
    return {**known, "model": None, "job": None, "ignored": False, **more}


BOBS = process(8, "bob", "x", None)


RESERVATION = {
    "type": "slurm",
    "user": "alice",
    "job_id": "5",
    "job_name": "train",
    "owner": "job:c:5:0",
    "note": "a note",
    "share": None,
    "granted_at": "2023-11-14T22:13:20Z",
    "renewed_at": "2023-11-14T22:13:50Z",
    "ends_at": "2023-11-14T23:13:20Z",
}


def test_every_key_of_the_form() -> None:
    status = node_status(VIEW, POLICY, live=True, expected_gpus=8)

    form = status_to_dict(VIEW.read_at, [status])

    assert json.loads(json.dumps(form)) == {
        "generated_at": "2023-11-14T22:14:20Z",
        "error": None,
        "nodes": [
            {
                "node": "n1",
                "scanned_at": "2023-11-14T22:14:10Z",
                "live": True,
                "source": "nvml",
                "fault": None,
                "found_gpus": 1,
                "expected_gpus": 8,
                "partitions": None,
                "partitions_at": None,
                "reservations_known": True,
                "hooks_outage": None,
                "gpus": [
                    {
                        "index": 0,
                        "mig_index": 1,
                        "uuid": "MIG-a",
                        "parent_uuid": "GPU-p",
                        "name": "H100",
                        "mig_profile": None,
                        "state": "reserved",
                        "reservation": RESERVATION,
                        "reservations": [RESERVATION],
                        "quarantine": {
                            "reason": "fan", "by": "root", "since": "2023-11-14T22:13:20Z",
                        },
                        "health": {
                            "recovery_action": "none", "remap_pending": None,
                            "remap_failed": None, "retirement_pending": None,
                            "ecc_uncorrected": 0, "compute_mode": None,
                        },
                        "memory_used_mb": 9000,
                        "memory_total_mb": 80000,
                        "utilization_percent": 87,
                        "processes": [
                            process(7, "alice", "py", 8, job="slurm:5",
                                    model="meta-llama/Llama-2-7b-chat-hf"),
                            BOBS,
                            process(9, "root", "Xorg", 3, ignored=True),
                        ],
                        "intruders": [BOBS],
                        "others_below_threshold": [],
                        "model": "meta-llama/Llama-2-7b-chat-hf",
                        "details": "bob WITHOUT RESERVATION: PID 8 (x); "
                        'job 5 train, ends in 58m 59s; quarantined: fan (root, 1m ago); "a note"',
                        "validation": "9000MB, 2 processes (Xorg ignored)",
                    }
                ],
                "queue": [
                    {
                        "position": 1, "user": "carol", "count": 2, "mig_profile": None,
                        "gpus": ["MIG-a"],
                        "owner": "run:1", "since": "2023-11-14T22:13:20Z",
                    }
                ],
            }
        ],
    }  # fmt: skip


def test_a_reservation_for_a_time_ends_when_the_ledger_says() -> None:
    held = {"MIG-a": Reservation("MIG-a", CLAIM, 1700000000.0, expires_at=1700007200.0)}
    view = replace(VIEW, reservations=held)

    form = status_to_dict(1.0, [node_status(view, POLICY)])

    assert form["nodes"][0]["gpus"][0]["reservation"]["ends_at"] == "2023-11-15T00:13:20Z"


def test_a_gpu_only_the_ledger_knows_has_the_same_keys() -> None:
    held = {"GPU-a": Reservation("GPU-a", Claim("o", "slurm", "u"), 0.0)}
    known = NodeView("n1", 10.0, Scan("n1", 0.0, 0.1, (GpuReading(0, "GPU-b", 0, "", 1, 2),)), 9.0)
    lost = NodeView("n1", 10.0, None, None, held)

    forms = [
        status_to_dict(10.0, [node_status(view, UsagePolicy(1))])["nodes"][0]
        for view in (known, lost)
    ]

    assert forms[0]["gpus"][0].keys() == forms[1]["gpus"][0].keys()
    assert forms[1]["fault"] == "never scanned"
    assert forms[1]["gpus"][0]["index"] is None
    assert forms[1]["gpus"][0]["reservation"]["granted_at"] is None


def test_times_that_no_calendar_has_are_not_known() -> None:
    assert iso_time(None) is None
    assert iso_time(1e300) is None
    assert iso_time(0.4) == "1970-01-01T00:00:00Z"

"""The JSON form, key by key: programs rely on it."""

from __future__ import annotations

import json

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.status.json_form import status_to_dict, time_text
from canhazgpu.status.model import node_status


def test_every_key_of_the_form() -> None:
    claim = Claim(
        "job:c:5:0", "slurm", "alice", 1000, job_id="5", job_name="train", ends_at=1700003600.0
    )
    seen = GpuReading(0, "GPU-a", 0, "H100", 9000, 80000, (GpuProcess(7, 1000, "alice", "py", 8),))
    view = NodeView(
        "n1",
        1700000060.5,
        Scan("n1", 0.0, 0.1, (seen,)),
        1700000050.0,
        {"GPU-a": Reservation("GPU-a", claim, 1700000000.0)},
    )

    form = status_to_dict(view.read_at, [node_status(view, UsagePolicy(1024), live=True)])

    assert json.loads(json.dumps(form)) == {
        "generated_at": "2023-11-14T22:14:20Z",
        "nodes": [
            {
                "node": "n1",
                "scanned_at": "2023-11-14T22:14:10Z",
                "live": True,
                "fault": None,
                "gpus": [
                    {
                        "index": 0,
                        "uuid": "GPU-a",
                        "name": "H100",
                        "state": "reserved",
                        "reservation": {
                            "type": "slurm",
                            "user": "alice",
                            "job_id": "5",
                            "job_name": "train",
                            "owner": "job:c:5:0",
                            "granted_at": "2023-11-14T22:13:20Z",
                            "ends_at": "2023-11-14T23:13:20Z",
                        },
                        "memory_used_mb": 9000,
                        "memory_total_mb": 80000,
                        "processes": [{"pid": 7, "user": "alice", "name": "py", "memory_mb": 8}],
                        "model": None,
                        "details": "job 5 train, ends in 58m 59s",
                        "validation": "9000MB, 1 processes",
                    }
                ],
            }
        ],
    }


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
    assert time_text(None) is None
    assert time_text(1e300) is None
    assert time_text(0.4) == "1970-01-01T00:00:00Z"

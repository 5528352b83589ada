"""Jobs for a node's hooks, and what became of them."""

from __future__ import annotations

import json
from typing import Any

from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Event

NODE = "n1"


def job_variables(number: int, gpus: str = "0,1", attempt: int = 0) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_GPUS": gpus,
        "SLURM_JOB_RESTART_COUNT": str(attempt),
    }


def owners_in_book(node: Any) -> dict[str, str]:
    """The owners by GPU in the node's own book."""
    held = json.loads((node.files / "run" / "book.json").read_text())["held"]
    return {gpu: json.loads(text)["owner"] for gpu, text in held.items()}


def node_events(node: Any, *kinds: str) -> list[Event]:
    return [one for one in node.ledger.history("n1", 0.0) if one.kind in (kinds or (one.kind,))]


def free_observation(*gpus: str) -> Observation:
    """A scan that finds these GPUs free."""
    found = (GpuReading(place, gpu, place, "H100", 0, 80000) for place, gpu in enumerate(gpus))
    return Observation(Scan(NODE, 0.0, 0.0, tuple(found)), 0.0)


def gpus_in_book(node: Any, owner: str) -> set[str]:
    return {gpu for gpu, one in owners_in_book(node).items() if one == owner}


def assert_never_alone(node: Any) -> None:
    """Hooks ran, and none of them took the store for lost."""
    assert "store-lost" not in node.log()
    assert not (node.files / "run" / "store-outage").exists()
    hooks = node_events(node, "prolog", "epilog")
    assert hooks
    assert not [one for one in hooks if "without_store" in one.facts]


def assert_one_owner_at_a_time(node: Any) -> None:
    """Replay the history: no GPU was granted while another had it, and none was taken away."""
    holder: dict[str, str] = {}
    for event in node_events(node, "grant", "release"):
        owner = event.claim.owner
        if event.kind == "grant":
            assert holder.setdefault(event.gpu, owner) == owner, event
        else:
            assert holder.pop(event.gpu) == owner, event

"""Output of `release` and `admin release`."""

from __future__ import annotations

import json
from typing import Any

import click

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.cli.terminal.gpu_names import format_gpus
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.service.holdings import ReleaseAnswer


def print_released(answer: ReleaseAnswer, *, as_json: bool, nothing: str) -> None:
    """Print what was released, or the text `nothing`; raises the error that ended it early."""
    if not as_json:
        for one in answer.released:
            freed = format_gpus(one.gpus, answer)
            print_sanitized(f"released {freed} of {answer.node}: {holder_name(one.claim)}")
    if answer.fault is not None:
        raise answer.fault
    if as_json:
        click.echo(_released_json(answer))
    elif not answer.released:
        print_sanitized(nothing)


def _released_json(answer: ReleaseAnswer) -> str:
    rows: list[dict[str, Any]] = [
        {
            "gpu": answer.display_indices.get(uuid),
            "uuid": uuid,
            "user": one.claim.user,
            "type": one.claim.type,
            "owner": one.claim.owner,
        }
        for one in answer.released
        for uuid in one.gpus
    ]
    return json.dumps({"node": answer.node, "released": rows}, indent=2)

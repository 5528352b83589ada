"""Output of `release` and `admin release`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.cli.terminal.gpu_names import format_gpus
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.errors import error_text
from canhazgpu.service.holdings import ReleaseAnswer


def print_released(answer: ReleaseAnswer, *, as_json: bool, nothing: str) -> None:
    """Print what was released, or the text `nothing`; raises the error that ended it early."""
    if not as_json:
        _print_lines(answer)
    if answer.fault is not None:
        raise answer.fault
    if as_json:
        click.echo(_released_json(answer))
    elif not answer.released:
        print_sanitized(nothing)


def print_released_on_nodes(
    answers: Sequence[ReleaseAnswer], *, as_json: bool, nothing: str
) -> None:
    """Print what was released on each node, or the text `nothing`; raises the first node's error.

    Further errors are lines on standard error.
    """
    faults = [(one.node, one.fault) for one in answers if one.fault is not None]
    if as_json:
        click.echo(json.dumps({"nodes": [_with_error(one) for one in answers]}, indent=2))
    else:
        for one in answers:
            _print_lines(one)
        if not faults and not any(one.released for one in answers):
            print_sanitized(nothing)
    for node, fault in faults[1:]:
        print_sanitized(f"{node or 'the store'}: {error_text(fault)}", err=True)
    for _, fault in faults:
        raise fault


def _print_lines(answer: ReleaseAnswer) -> None:
    for one in answer.released:
        freed = format_gpus(one.gpus, answer)
        print_sanitized(f"released {freed} of {answer.node}: {holder_name(one.claim)}")


def _with_error(answer: ReleaseAnswer) -> dict[str, Any]:
    error = None if answer.fault is None else error_text(answer.fault)
    return {**_released_to_dict(answer), "error": error}


def _released_json(answer: ReleaseAnswer) -> str:
    return json.dumps(_released_to_dict(answer), indent=2)


def _released_to_dict(answer: ReleaseAnswer) -> dict[str, Any]:
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
    return {"node": answer.node, "released": rows}

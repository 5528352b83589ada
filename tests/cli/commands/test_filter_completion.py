"""Completion of the values that choose what `status` shows."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from click.shell_completion import CompletionItem
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.main import cli
from canhazgpu.cli.options.status_filter import STATES, complete_states
from canhazgpu.cli.options.value_completion import (
    complete_models,
    complete_partitions,
    complete_users,
)
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.values import Claim, NodeView, Reservation, Waiter

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

PROCESSES = (
    GpuProcess(7, 1, "carol", "python3", 5, "meta-llama/Llama-2-7b-chat-hf"),
    GpuProcess(8, None, None, None, 5),
)
N1 = NodeView(
    "n1",
    NOW,
    Scan("n1", 0.0, 0.1, (GpuReading(0, "GPU-0", 0, "H100", 5, 9, PROCESSES),)),
    NOW,
    {"GPU-0": Reservation("GPU-0", Claim("o", "manual", "erin"), NOW)},
    queue=(Waiter("run:1", "dave", 5, 1), Waiter("run:2", "x; rm -rf", 6, 1)),
    partitions=("gpu", "debug"),
)


@pytest.mark.parametrize(
    ("complete", "incomplete", "expected"),
    [
        # What others chose is offered only where a shell may have it.
        (complete_users, "", ["carol", "dave", "erin"]),
        (complete_users, "carol,d", ["carol,dave"]),
        (complete_users, "carol,", ["carol,dave", "carol,erin"]),
        (complete_partitions, "", ["debug", "gpu"]),
        (complete_partitions, "gpu,", ["gpu,debug"]),
        (complete_models, "l", ["llama-2-7b-chat"]),
        (complete_states, "", list(STATES)),
        (complete_states, "free,un", ["free,unreserved", "free,unknown"]),
    ],
)
def test_values(complete: Complete, incomplete: str, expected: list[str]) -> None:
    nodes = FakeLedger(N1, NodeView("n2", NOW, None, None))
    context = click.Context(cli, obj=app(nodes, FakeProbe()))
    found = complete(context, click.Option(["--x"]), incomplete)
    assert [item.value for item in found] == expected

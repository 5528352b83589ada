"""The utilization of GPUs: nothing that happens to it costs a scan."""

from __future__ import annotations

from collections.abc import Callable

import fake_nvml
from canhazgpu.ledger.port import Observation

Observe = Callable[..., Observation]


def test_a_call_for_the_utilization_that_hangs_costs_no_scan(
    node: fake_nvml.FakeNode, observe: Observe
) -> None:
    node.gpu(0).set_health(utilization_gpu=7)
    node.inject("nvmlDeviceGetUtilizationRates", hang=True, gpu=1)
    seen = observe()
    assert seen.scan.fault is None
    assert [gpu.fault for gpu in seen.scan.gpus] == [None] * 4
    assert [gpu.utilization_percent for gpu in seen.scan.gpus] == [7, None, None, None]
    assert seen.unknown == frozenset()

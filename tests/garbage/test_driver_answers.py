"""Whatever nvidia-smi prints: it is a reading, or an error of the scan, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from garbage.judgement import examples
from garbage.values import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json
from canhazgpu.gpu.usage import Usage, UsagePolicy, judge_usage
from canhazgpu.probe.nvidia_smi import reader as nvidia_smi

REST = "81559, 0, Default, 0, No, Disabled, No, No, None, NVIDIA H100"
GPUS = f"0, GPU-a, 00000000:10:00.0, 9000, {REST}\n1, GPU-b, 00000000:20:00.0, 4, {REST}\n"
APPS = f"{os.getpid()}, GPU-a, 9000\n"
POLICY = UsagePolicy(1024)


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    st.integers().map(str),
    st.sampled_from(["[N/A]", "N/A", "", "-1", "1e400", "nan", "[Unknown Error]", "9" * 400]),
)
USED = 3
"""The column of the memory that is used: whoever changes that, changes what is so."""


@st.composite
def with_a_cell_changed(draw: st.DrawFn, known: str, kept: int | None = None) -> str:
    """The output with any one cell changed, but those of the column `kept`."""
    rows = [line.split(", ") for line in known.splitlines()]
    row = draw(st.sampled_from(rows))
    place = draw(st.sampled_from([at for at in range(len(row)) if at != kept]))
    row[place] = draw(TEXTS)
    return "".join(f"{', '.join(one)}\n" for one in rows)


OUTPUTS = st.one_of(
    st.tuples(with_a_cell_changed(GPUS, USED), st.just(APPS), st.just(True)),
    st.tuples(st.just(GPUS), with_a_cell_changed(APPS), st.just(True)),
    st.tuples(
        damaged(GPUS.encode()).map(lambda one: one.decode(errors="replace")),
        damaged(APPS.encode()).map(lambda one: one.decode(errors="replace")),
        st.just(False),
    ),
)


def test_any_output(monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]) -> None:
    """`GPU-a` uses 9000 MB: as long as that can be read, it is never free."""
    answers: dict[str, nvidia_smi.SmiAnswer] = {}
    monkeypatch.setattr(nvidia_smi, "_query", lambda _, what, __: answers[what])
    monkeypatch.setattr(nvidia_smi, "MODULE_VERSION_FILE", Path("/nowhere"))
    tried, refused = [], []

    @settings(
        max_examples=examples(60),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(OUTPUTS, st.sampled_from([0, 0, 0, 1, 15, 255]))
    def holds(outputs: tuple[str, str, bool], status: int) -> None:
        tried.append(1)
        gpus, apps, is_used = outputs
        answers["gpu"] = nvidia_smi.SmiAnswer(gpus, status)
        answers["compute-apps"] = nvidia_smi.SmiAnswer(apps, 0)
        try:
            found = nvidia_smi.read_gpus("nvidia-smi")
        except ScanError as exc:
            refused.append(str(exc))
            return
        free = {one.uuid for one in found if judge_usage(one, POLICY) is Usage.FREE}
        assert not is_used or "GPU-a" not in free
        scan = Scan("n1", 0.0, 0.0, tuple(found))
        assert scan_from_json(scan_to_json(scan)) == scan

    holds()
    assert len(refused) < len(tried)
    figures(f"nvidia-smi's output: {len(tried)} tried, {len(refused)} refused, 0 broke")

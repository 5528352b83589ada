"""Configurations of Slurm: our reading of each, and that of the real slurmd at hand.

Each folder of ``configurations`` has Slurm's files and ``gpus.txt``: the node's name, then a GPU a
line in Slurm's order, or ``refused`` where slurmd does not start.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from slurm_configurations import (
    Configuration,
    load_configuration,
    make_device_files,
    our_reading,
    slurmds_reading,
)

CONFIGURATIONS = sorted(Path(__file__).with_name("configurations").iterdir())
EXAMPLES = 40

each_configuration = pytest.mark.parametrize(
    "source", CONFIGURATIONS, ids=[one.name for one in CONFIGURATIONS]
)


@each_configuration
def test_our_reading(source: Path, tmp_path: Path) -> None:
    found = load_configuration(source, tmp_path / "conf")
    assert our_reading(found) == found.expected


@pytest.mark.slurm
@pytest.mark.release
@each_configuration
def test_slurmds_reading(source: Path, tmp_path: Path) -> None:
    found = load_configuration(source, tmp_path / "conf")
    assert slurmds_reading(found) == found.expected


KINDS = ("", "a100", "A100", "3090", "1g.5gb", "v100-sxm2")
kinds = some.sampled_from(KINDS)
typed = some.sampled_from(KINDS[1:])


@some.composite
def gres_lines(draw: some.DrawFn) -> list[str]:
    """Lines of gres.conf, most of which slurmd accepts: all have types or none has."""
    line_kinds = draw(some.lists(draw(some.sampled_from([typed, some.just("")])), max_size=5))
    files = draw(some.permutations([f"DEV/nvidia{number}" for number in range(10)]))
    lines = []
    for kind in line_kinds:
        count = min(draw(some.integers(1, 3)), len(files) or 1)
        mine, files = files[:count], files[count:]
        key = draw(some.sampled_from(["File", "Files", "File"]))
        if draw(some.integers(0, 4)) == 0:
            key, mine = "MultipleFiles", [*mine[:1], "DEV/nvidia-caps/nvidia-cap[1-2]"]
        words = [f"Type={kind}"] * bool(kind) + [f"{key}={','.join(mine)}"] * bool(mine)
        prefix = draw(
            some.sampled_from(["Name=gpu", "NodeName=n1 Name=gpu", "NodeName=n2 Name=gpu"])
        )
        lines.append(" ".join([prefix, *draw(some.permutations(words))]))
    return lines


@some.composite
def declarations(draw: some.DrawFn) -> str:
    """A value of Gres=."""
    items = []
    for kind in draw(some.lists(draw(some.sampled_from([typed, some.just("")])), max_size=4)):
        count = draw(some.sampled_from(["", ":1", ":2", ":3", ":4", ":1k"]))
        socket = draw(some.sampled_from(["", "", "(S:0-1)"]))
        items.append("gpu" + f":{kind}" * bool(kind) + count + socket)
    return ",".join(items)


@pytest.mark.slurm
@pytest.mark.release
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=gres_lines(), declared=declarations())
def test_generated_configurations(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], declared: str
) -> None:
    directory = tmp_path_factory.mktemp("conf")
    make_device_files(directory / "dev")
    gres = f"Gres={declared}" if declared else ""
    (directory / "slurm.conf").write_text(
        "ClusterName=Test\nSlurmctldHost=localhost\nGresTypes=gpu\n"
        f"NodeName=n2 CPUs=1\nNodeName=n1 CPUs=1 {gres}\n"
    )
    text = "\n".join(lines).replace("DEV/", f"{directory}/dev/")
    (directory / "gres.conf").write_text(f"{text}\n")
    found = Configuration(directory, "n1", ())

    assert our_reading(found) == slurmds_reading(found)

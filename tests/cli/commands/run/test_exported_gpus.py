"""What a command is told of its GPUs, in a run and inside a job, and what commands make of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import click
import pytest
from hosts.shared_host import NODE, SharedHost
from polling import poll_until

from canhazgpu.cli.main import cli

pytestmark = pytest.mark.slow

SHOW = 'echo "$CUDA_VISIBLE_DEVICES $CANHAZGPU_GPUS"'


def all_free(host: SharedHost) -> bool:
    return not host.holders()


def test_a_run_is_told_the_uuids_of_its_gpus(host: SharedHost) -> None:
    stale = {"CANHAZGPU_GPUS": "GPU-stale"}
    done = host.call("run", "--gpus", "2", "--", "sh", "-c", SHOW, environ=stale)
    visible, names = done.stdout.split()
    assert visible == names
    assert sorted(names.split(",")) == sorted(host.uuids())


def test_reserve_tells_them_too(host: SharedHost) -> None:
    shown = json.loads(host.call("reserve", "--json").stdout)
    (gpu,) = shown["gpus"]
    assert shown["environment"] == {
        "CUDA_VISIBLE_DEVICES": gpu["uuid"],
        "CANHAZGPU_GPUS": gpu["uuid"],
    }


def seen_by_cuda(host: SharedHost) -> list[str]:
    return ["sh", "-c", f"{host.root}/nvml/gpu-process --seconds 0; echo $CANHAZGPU_GPUS"]


@pytest.mark.parametrize("lost", [False, True])
def test_indices_lead_cuda_to_the_reserved_gpu(
    make_host: Callable[..., SharedHost], lost: bool
) -> None:
    host = make_host(3)
    host.configure(run={"export": "index"})
    for gpu, bus, speed in zip(host.node.gpus, (0x30, 0x10, 0x20), (3, 1, 2), strict=True):
        gpu.set("pci_bus_id", f"00000000:{bus:02X}:00.0")
        gpu.set("speed", speed)
    if lost:
        host.node.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=1)

    for index in (0, 2):
        uuid = host.uuids()[index]
        done = host.call("run", "--gpu-ids", str(index), "--", *seen_by_cuda(host))
        shown, names = done.stdout.splitlines()
        assert (json.loads(shown)["gpus"], names) == ([uuid], uuid), done.stderr


def test_an_index_that_is_not_certain_is_refused(host: SharedHost) -> None:
    host.configure(run={"export": "index"})
    host.node.inject("nvmlDeviceGetPciInfo", return_=3, gpu=0)

    for request in (["run", "--", "true"], ["run", "--gpu-ids", "1", "--", "true"], ["reserve"]):
        done = host.call(*request)
        assert done.returncode == 2
        assert 'run.export = "index", but CUDA\'s index of GPU ' in done.stderr
        assert 'set run.export = "uuid"' in done.stderr
    assert all_free(host)
    assert host.view().queue == ()


@pytest.mark.parametrize(
    ("visible", "uuids", "count", "seen"),
    [
        ("0,1", "GPU-a,GPU-b", 2, "0,1 GPU-a,GPU-b"),
        # Which of the two CUDA's 0 is, is not known.
        ("0,1", "GPU-a,GPU-b", 1, "GPU-a GPU-a"),
        ("GPU-a,GPU-b", "GPU-a,GPU-b", 1, "GPU-a GPU-a"),
        ("GPU-b", "GPU-a,GPU-b", 1, "GPU-b GPU-b"),
        ("MIG-a", "MIG-a,MIG-b", 1, "MIG-a MIG-a"),
        ("0,1", "GPU-a", 1, "0 "),
        ("0,1", "", 2, "0,1 "),
    ],
)
def test_inside_a_job_the_names_are_those_of_the_gpus_that_the_command_sees(
    host: SharedHost, visible: str, uuids: str, count: int, seen: str
) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE, "CUDA_VISIBLE_DEVICES": visible}
    show = 'echo "$CUDA_VISIBLE_DEVICES $CANHAZGPU_GPUS"'
    done = host.call(
        *("run", "--gpus", str(count), "--", "sh", "-c", show),
        environ={**job, "CANHAZGPU_GPUS": uuids},
    )
    assert (done.returncode, done.stdout) == (0, f"{seen}\n")


def leaf_commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaf_commands(command, *names, name)
        else:
            yield (*names, name)


NEEDED = {
    ("run",): ["--nonblock", "--", "true"],
    ("reserve",): ["--nonblock"],
    ("explain",): ["12"],
    ("completion",): ["bash"],
    ("agent", "install"): ["--dry-run"],
    ("agent", "uninstall"): ["--dry-run"],
    ("admin", "release"): ["--node", "host1", "--all", "--yes"],
    ("admin", "quarantine"): ["0", "--reason", "test"],
    ("admin", "unquarantine"): ["0"],
    ("admin", "forget"): ["nowhere", "--yes"],
}
"""The arguments without which a command does nothing."""


COMMANDS = [one for one in leaf_commands(cli) if one != ("agent", "run")]
"""All but the agent itself, which serves until it is ended."""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_takes_the_names_for_a_key(
    host: SharedHost, command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = [*command, *NEEDED.get(command, [])]
    if command[0] == "hooks":
        arguments += ["--slurm-dir", str(tmp_path_factory.mktemp("slurm"))]
    within = {"CANHAZGPU_GPUS": host.uuids()[0], "CANHAZGPU_OWNER": "run:1:word"}

    plain = host.call(*arguments)
    with_names = host.call(*arguments, environ=within)

    assert "CANHAZGPU_GPUS" not in with_names.stderr
    assert with_names.stdout.count("CANHAZGPU_GPUS") == plain.stdout.count("CANHAZGPU_GPUS")
    assert with_names.returncode == plain.returncode


def test_commands_work_inside_a_run(host: SharedHost) -> None:
    program = host.program
    script = f"{program} status --json && {program} run --nonblock -- sh -c '{SHOW}'"
    done = host.call("run", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    visible, names = done.stdout.splitlines()[-1].split()
    assert visible == names
    poll_until(lambda: all_free(host), "the GPUs to be free")

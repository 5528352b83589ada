"""The shell lines in docs/containers.md hand each runtime the GPUs in the words that it expects."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from polling import poll_until

ROOT = Path(__file__).parents[2]
A, B = "GPU-aaaaaaaa-1111-2222-3333-444444444444", "GPU-bbbbbbbb-1111-2222-3333-444444444444"
RUNTIME = """#!/bin/sh
{
    printf '%s' "${0##*/}"
    printf '<%s>' "$@"
    env | sed -n 's/^\\(.*VISIBLE_DEVICES\\)=/ \\1=/p' | tr -d '\\n'
    echo
} >>"$LOG"
case $1/$HANGS in run/yes) exec sleep 60 ;; esac
"""
CANHAZGPU = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""

BLOCKS = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs/containers.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def block(words: str) -> str:
    (found,) = [one for one in BLOCKS if words in one]
    return str(found)


@pytest.fixture(params=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def environ(directory: Path, **more: str) -> dict[str, str]:
    for name in ("docker", "podman", "apptainer", "srun"):
        (directory / name).write_text(RUNTIME)
        (directory / name).chmod(0o755)
    (directory / "canhazgpu").write_text(CANHAZGPU)
    (directory / "canhazgpu").chmod(0o755)
    path = f"{directory}:/usr/bin:/bin"
    return {"PATH": path, "LOG": str(directory / "log"), "SLURM_JOB_ID": "12", "HANGS": "", **more}


def called(shell: str, script: str, directory: Path, gpus: str | None) -> list[str]:
    """Run the lines, and return how the runtimes were called."""
    told = {} if gpus is None else {"CANHAZGPU_GPUS": gpus}
    subprocess.run(
        [shell, "-c", script],
        env=environ(directory, **told),
        capture_output=True,
        timeout=30,
        check=False,
    )
    log = directory / "log"
    return log.read_text().splitlines() if log.exists() else []


IMAGE = "<nvidia/cuda:12.4.1-base-ubuntu22.04>"
DOCKER = f'docker<run><--rm><--gpus><"device={A},{B}">{IMAGE}<nvidia-smi><-L>'


@pytest.mark.parametrize("words", ['docker run --rm --gpus "\\"device=${', "canhazgpu run"])
def test_docker_gets_one_word_with_quotes_of_its_own(
    shell: str, tmp_path: Path, words: str
) -> None:
    assert called(shell, block(words), tmp_path, f"{A},{B}") == [DOCKER]


def test_podman_gets_each_gpu_by_its_cdi_name(shell: str, tmp_path: Path) -> None:
    devices = "".join(f"<--device><nvidia.com/gpu={one}>" for one in (A, B))
    assert called(shell, block("podman run"), tmp_path, f"{A},{B}") == [
        f"podman<run><--rm><--cgroups=disabled>{devices}<docker.io/{IMAGE[1:]}<nvidia-smi><-L>"
    ]


@pytest.mark.parametrize(
    ("option", "variable"),
    [("--cleanenv", "APPTAINERENV_CUDA_VISIBLE_DEVICES"), ("--nvccli", "NVIDIA_VISIBLE_DEVICES")],
)
def test_apptainer_gets_them_in_its_variable(
    shell: str, tmp_path: Path, option: str, variable: str
) -> None:
    assert called(shell, block(option), tmp_path, f"{A},{B}") == [
        f"apptainer<exec><--nv><{option}><train.sif><python><train.py> {variable}={A},{B}"
    ]


def test_without_gpus_no_container_starts(shell: str, tmp_path: Path) -> None:
    told = [one for one in BLOCKS if ":?" in one]
    assert len(told) == 5
    for script in told:
        calls = called(shell, script, tmp_path, None)
        assert not [one for one in calls if one.startswith(("docker<run", "podman", "apptainer"))]


def test_the_batch_script_ends_its_container(shell: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = subprocess.Popen(
        [shell, "-c", block("trap")],
        env=environ(tmp_path, CANHAZGPU_GPUS=A, HANGS="yes"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    poll_until(lambda: log.exists() and log.read_text().endswith("\n"))
    script.terminate()
    assert script.wait(timeout=20) == 143
    started, ended = log.read_text().splitlines()
    assert started.startswith(f'docker<run><--rm><--name><job-12><--gpus><"device={A}">')
    assert ended == "docker<kill><job-12>"

#!/usr/bin/python3
"""Time the hooks of one job over simulated GPUs, beside what no hook in Python can do without.

    hook_time.py PYTHON [ROUNDS] [OTHER_PYTHON...]

PYTHON is an interpreter that has canhazgpu installed with its embedded store; others have other
revisions of it, to be compared with, each with a node and a store of its own. The rows are taken
in turn within each round, so that a slow moment of the machine hits all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fake-nvml"))

from fake_nvml import FakeState, install

GPUS = 8
DEFAULT_ROUNDS = 20

CONFIG = """\
[store]
url = "embedded"
embedded_dir = "{root}/store"

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
state_dir = "{root}/run"

[slurm]
bin_dir = "{root}/bin"
"""
CALL = "import sys; from {} import main; sys.exit(main())"
"""As the installed scripts do it; -m would import half as much again as bare Python does."""
STOP_STORE = """
import sys
try:
    from canhazgpu.ledger.embedded import server
except ImportError:  # releases before 0.1.0 have it in one module
    from canhazgpu.ledger import embedded as server
server.stop(sys.argv[1])
"""
SQUEUE = "#!/bin/sh\necho 1 RUNNING\n"
"""The health check asks whether the job is still there: a shell's start is part of its row."""


Times = dict[str, list[float]]


def main(pythons: list[str], rounds: int) -> None:
    """Print the median of each row in milliseconds, with its ratio to the first interpreter's."""
    with tempfile.TemporaryDirectory(prefix="hook-time-") as directory:
        roots = [Path(directory, str(place)) for place in range(len(pythons))]
        for root in roots:
            prepare(root)
        try:
            found = measure(pythons, roots, rounds)
        finally:
            for python, root in zip(pythons, roots, strict=True):
                subprocess.run(
                    [python, "-I", "-c", STOP_STORE, root / "store"], check=True, timeout=30
                )
    bare = statistics.median(found[0]["bare python"])
    for name, values in found[0].items():
        median = statistics.median(values)
        print(f"{name:28} {median:7.1f} ms  {median / bare:5.1f} x bare python")
        for python, times in zip(pythons[1:], found[1:], strict=True):
            other = statistics.median(times[name])
            print(f"{'':28} {other:7.1f} ms  {other / median:5.2f} x the first: {python}")


def prepare(root: Path) -> None:
    """Make a node with simulated GPUs."""
    root.mkdir()
    install(root / "fake")
    FakeState(root / "fake" / "state").add_node("n1", gpus=GPUS)
    (root / "config.toml").write_text(CONFIG.format(root=root))
    (root / "gres.conf").write_text(f"Name=gpu File=/dev/nvidia[0-{GPUS - 1}]\n")
    (root / "bin").mkdir()
    (root / "bin" / "squeue").write_text(SQUEUE)
    (root / "bin" / "squeue").chmod(0o755)


def measure(pythons: list[str], roots: list[Path], rounds: int) -> list[Times]:
    """Return for each interpreter the milliseconds of each row, one value for each round."""
    rows = [timed_rows(root) for root in roots]
    found: list[Times] = [{name: [] for name in one} for one in rows]
    for turn in range(rounds + 1):
        for name in rows[0]:
            for python, own, times in zip(pythons, rows, found, strict=True):
                arguments, environ = own[name]
                began = time.perf_counter()
                # No timeout: subprocess would look for the end every 50 ms only.
                subprocess.run(
                    [python, "-I", *arguments], env=environ, stdout=subprocess.DEVNULL, check=True
                )
                if turn > 0:  # the first round starts the store
                    times[name].append((time.perf_counter() - began) * 1000)
    return found


def timed_rows(root: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return what is timed: its arguments and environment."""
    job = {
        "SLURMD_NODENAME": "n1",
        "SLURM_CONF": str(root / "slurm.conf"),
        "SLURM_CLUSTER_NAME": "bench",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_UID": "0",
        "CANHAZGPU_CONFIG": str(root / "config.toml"),
    }
    gpus = {**job, "SLURM_JOB_GPUS": "0,1"}
    node = {name: value for name, value in job.items() if "JOB" not in name}
    return {
        "bare python": (["-c", ""], job),
        "import redis": (["-c", "import redis"], job),
        "prolog, job without GPUs": (["-c", CALL.format("canhazgpu.prolog.main")], job),
        "prolog, two GPUs": (["-c", CALL.format("canhazgpu.prolog.main")], gpus),
        "health check": (["-c", CALL.format("canhazgpu.epilog.health_check")], node),
        "epilog, two GPUs": (["-c", CALL.format("canhazgpu.epilog.main")], gpus),
        "canhazgpu status": (["-c", CALL.format("canhazgpu.cli.entry"), "status"], node),
    }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_ROUNDS
    main([sys.argv[1], *sys.argv[3:]], wanted)

#!/usr/bin/python3
"""Time the hooks of one job over simulated GPUs, beside what no hook in Python can do without.

    hook_time.py PYTHON [ROUNDS]

PYTHON is an interpreter that has canhazgpu installed with its embedded store. The rows are taken in
turn within each round, so that a slow moment of the machine hits all of them alike.
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
"""


def main(python: str, rounds: int) -> None:
    """Print the median of each row in milliseconds, and its ratio to a bare interpreter."""
    with tempfile.TemporaryDirectory(prefix="hook-time-") as directory:
        root = Path(directory)
        install(root / "fake")
        FakeState(root / "fake" / "state").add_node("n1", gpus=GPUS)
        (root / "config.toml").write_text(CONFIG.format(root=root))
        try:
            times = measure(python, root, rounds)
        finally:
            stop = "import sys; from canhazgpu.ledger import embedded; embedded.stop(sys.argv[1])"
            subprocess.run([python, "-I", "-c", stop, str(root / "store")], check=True, timeout=30)
    bare = statistics.median(times["bare python"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:28} {median:7.1f} ms  {median / bare:5.1f} x bare python")


def measure(python: str, root: Path, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each row, one value for each round."""
    job = {
        "SLURMD_NODENAME": "n1",
        "SLURM_CONF": str(root / "slurm.conf"),
        "SLURM_CLUSTER_NAME": "bench",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_UID": "0",
        "CANHAZGPU_CONFIG": str(root / "config.toml"),
    }
    gpus = {**job, "SLURM_JOB_GPUS": "0,1"}
    rows = {
        "bare python": (["-I", "-c", ""], job),
        "import redis": (["-I", "-c", "import redis"], job),
        "prolog, job without GPUs": (["-I", "-m", "canhazgpu.prolog.main"], job),
        "prolog, two GPUs": (["-I", "-m", "canhazgpu.prolog.main"], gpus),
        "epilog, two GPUs": (["-I", "-m", "canhazgpu.epilog.main"], gpus),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(rounds + 1):
        for name, (arguments, environ) in rows.items():
            began = time.perf_counter()
            subprocess.run([python, *arguments], env=environ, check=True, timeout=60)
            if turn > 0:  # the first round starts the store
                times[name].append((time.perf_counter() - began) * 1000)
    return times


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_ROUNDS)

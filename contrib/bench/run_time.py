#!/usr/bin/python3
"""Time `canhazgpu run` over simulated GPUs: its start, its queue, and how soon GPUs are free again.

    run_time.py VENV [ROUNDS]

VENV has canhazgpu installed, and a Redis server is on the path. Rows that are compared are taken in
turn within each round, so that a slow moment of the machine hits all of them alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTRIB = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CONTRIB / "fake-nvml"))

from fake_nvml import FakeState, install  # noqa: E402 - where it lies is known only now

GPUS = 8
DEFAULT_ROUNDS = 10
SHORT_RUNS = 16
CONFIG = """\
[store]
url = "unix://{root}/redis.sock"

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
name = "bench"
state_dir = "{root}/run"
marker_dir = "{root}/lib"
"""


class Bench:
    """A host with simulated GPUs and a server of its own."""

    def __init__(self, root: Path, venv: Path) -> None:
        self.program = venv / "bin" / "canhazgpu"
        self.python = venv / "bin" / "python"
        self.environ = {"PATH": os.defpath, "CANHAZGPU_CONFIG": str(root / "config.toml")}
        install(root / "fake")
        state = FakeState(root / "fake" / "state")
        state.add_node("bench", gpus=GPUS)
        state.set_default_node("bench")
        (root / "config.toml").write_text(CONFIG.format(root=root))
        arguments = ["--port", "0", "--unixsocket", f"{root}/redis.sock", "--save", ""]
        self.server = subprocess.Popen(
            ["redis-server", *arguments, "--dir", str(root)],  # noqa: S607 - from PATH
            stdout=subprocess.DEVNULL,
        )
        while not (root / "redis.sock").exists():
            time.sleep(0.01)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a run; its command's output can be read."""
        return subprocess.Popen(
            [self.program, "run", *words], env=self.environ, stdout=subprocess.PIPE
        )

    def command_ms(self, command: list[str]) -> float:
        """Return the milliseconds that a command takes."""
        began = time.perf_counter()
        subprocess.run(command, env=self.environ, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000

    def keepers(self) -> list[int]:
        """Return the keepers of this bench's runs whose command sleeps: no other host's."""
        mark = f"CANHAZGPU_CONFIG={self.environ['CANHAZGPU_CONFIG']}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if ours and b"run" in words and any(b"exec sleep" in word for word in words):
                found.append(int(entry.name))
        return found

    def short_runs_s(self) -> float:
        """Return the seconds that many short runs at once take together."""
        began = time.perf_counter()
        runs = [self.start("--", "sleep", "0.05") for _ in range(SHORT_RUNS)]
        for run in runs:
            run.communicate(timeout=60)
        return time.perf_counter() - began

    def handover_ms(self, end: str) -> float:
        """Return the milliseconds from the end of who has all GPUs to the start of who waits.

        `end` is ``command`` for the command's end, or ``both`` for killing its keeper first.
        """
        busy = self.start("--gpus", str(GPUS), "--", "sh", "-c", "echo up; exec sleep 60")
        assert busy.stdout is not None
        busy.stdout.readline()
        late = self.start("--gpus", str(GPUS), "--", "sh", "-c", "echo up")
        assert late.stdout is not None
        time.sleep(1.0)
        if end == "both":
            for pid in self.keepers():
                os.kill(pid, 9)
        began = time.perf_counter()
        busy.kill()
        late.stdout.readline()
        took = (time.perf_counter() - began) * 1000
        for one in (busy, late):
            one.communicate(timeout=60)
        return took


def main(venv: Path, rounds: int) -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory(prefix="run-time-") as directory:
        bench = Bench(Path(directory), venv)
        program = str(bench.program)
        rows = {
            "bare python": [str(bench.python), "-I", "-c", ""],
            "canhazgpu --version": [program, "--version"],
            "canhazgpu run -- true": [program, "run", "--", "true"],
            "canhazgpu status": [program, "status"],
        }
        times: dict[str, list[float]] = {name: [] for name in rows}
        try:
            for _ in range(rounds):
                for name, command in rows.items():
                    times[name].append(bench.command_ms(command))
            bare = statistics.median(times["bare python"])
            for name, values in times.items():
                median = statistics.median(values)
                print(f"{name:34} {median:8.1f} ms  {median / bare:5.1f} x bare python")
            runs = statistics.median(bench.short_runs_s() for _ in range(3))
            print(f"{SHORT_RUNS} runs of 50 ms on {GPUS} GPUs          {runs:8.2f} s")
            for end in ("command", "both"):
                waited = statistics.median(bench.handover_ms(end) for _ in range(3))
                print(f"from the end of the {end:8} to the next {waited:6.0f} ms")
        finally:
            bench.server.terminate()
            bench.server.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_ROUNDS)

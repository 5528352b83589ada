"""A program beside each slurmd: it serves before slurmd runs, and ends after it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo_cluster import ClusterSpec, PrivateSlurm, StartError
from demo_cluster.host.processes import find_process

READY = """
import os, pathlib, signal, socket, sys, time
node = os.environ["SLURMD_NODENAME"]
log = pathlib.Path(sys.argv[1]) / node

def end(*_):
    log.open("a").write("ended\\n")
    print("said at the end", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
time.sleep(0.5)
log.open("a").write(f"ready {os.getpid()}\\n")
notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notified.sendto(b"STATUS=x\\nREADY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
signal.pause()
"""


def spec(directory: Path, program: str) -> ClusterSpec:
    path = directory / "agent.py"
    path.write_text(program)
    command = (sys.executable, "-I", str(path), str(directory))
    return ClusterSpec(nodes=2, gpus_per_node=1, node_agent=command)


@pytest.mark.slurm
def test_each_node_has_one_from_before_its_slurmd_until_after(directory: Path) -> None:
    lines = {node: directory / node for node in ("n1", "n2")}
    with PrivateSlurm(directory / "c", spec(directory, READY)) as slurm:
        found = {node: slurm.agent_process(node) for node in lines}
        for node, path in lines.items():
            assert (process := found[node]) is not None
            assert path.read_text() == f"ready {process.pid}\n"

        slurm.kill_agent("n1")
        assert slurm.agent_process("n1") is None
        slurm.start_agents("n1")
        assert (again := slurm.agent_process("n1")) is not None
        assert again != found["n1"]
        assert lines["n1"].read_text().splitlines()[-1] == f"ready {again.pid}"

    for path in lines.values():
        assert path.read_text().splitlines()[-1] == "ended"
    assert find_process(again.pid) != again
    assert "said at the end" in slurm.layout.console("agent-n2").read_text()


@pytest.mark.slurm
def test_one_that_ends_is_a_failed_start_which_shows_why(directory: Path) -> None:
    slurm = PrivateSlurm(directory / "c", spec(directory, "raise SystemExit('no such driver')"))
    with pytest.raises(StartError, match=r"agent-n1 has ended[\s\S]*no such driver"):
        slurm.start()

"""`canhazgpu status` over a real server, real pynvml and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import PrivateRedis

import fake_nvml
from canhazgpu.config.schema import StoreConfig, ValidationConfig
from canhazgpu.ledger.connect import Role
from canhazgpu.ledger.redis_ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.probe.node_probe import NodeProbe

RUN = "from canhazgpu.cli.main import main; main()"
READER = "reader on nopass ~* +@read +@transaction +@connection +time"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chg-status-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def status(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", RUN, "status", *arguments],
        env={**inherited, "PYTHONPATH": paths, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_status_over_real_parts_with_read_rights_only(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(directory / "nvml")
    node = fake_nvml.FakeState(directory / "nvml" / "state").add_node("n1", 3)
    library = str(next((directory / "nvml").rglob("libnvidia-ml.so.1")))
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    with PrivateRedis() as server:
        # Given a reserved GPU in use, one in use without reservation, and a free one
        ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
        observation = NodeProbe("n1", ValidationConfig(nvml_library=library)).start().observe()
        owner = Claim("job:c:7:0", "slurm", "alice", job_id="7", job_name="j", ends_at=1.0)
        ledger.reserve_given(owner, [observation.scan.gpus[0].uuid], observation)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", *READER.split())
        environ = {
            "CANHAZGPU_STORE_URL": server.url.replace("unix://", "unix://reader:x@"),
            "CANHAZGPU_VALIDATION_NVML_LIBRARY": library,
            "CANHAZGPU_NODE_NAME": "n1",
        }
        with (
            fake_nvml.start_gpu_process(node.gpu(0), 8000, name="train.py"),
            fake_nvml.start_gpu_process(node.gpu(1), 2000, name="intruder") as intruder,
        ):
            # If a user who may only read the ledger looks
            done = status(environ)

    # I expect each in its own state
    assert (done.returncode, done.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()[2:]]
    assert rows[0].startswith("0 in use alice ")
    assert rows[0].endswith(" ago 8045MB, 1 processes")
    assert "WITHOUT RESERVATION 2045MB used by PID" in rows[1]
    assert f"PID {intruder.pid} (intruder)" in rows[1]
    assert rows[2] == "2 available 45MB used"


def test_a_store_that_does_not_answer(directory: Path) -> None:
    done = status({"CANHAZGPU_STORE_URL": f"unix://{directory}/none.sock"})

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("Error: cannot reach the store at ")

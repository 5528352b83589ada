"""`canhazgpu validate` as a health check runs it: a process, a server, a driver, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forking_python import own_interpreter
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger

pytestmark = pytest.mark.slow

RUN = "from canhazgpu.cli.main import main; main()"
READER = "reader on nopass ~* +@read +@transaction +@connection +time"


@dataclass
class Place:
    """A node of two simulated GPUs with a ledger, and the command on it."""

    gpus: fake_nvml.FakeNode
    server: PrivateRedis
    environ: dict[str, str] = field(default_factory=dict)

    def validate(self, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        if not more:
            return own_interpreter().run(["-c", RUN, "validate", *arguments], self.environ, 60)
        settings: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run(
            [sys.executable, "-c", RUN, "validate", *arguments],
            env=self.environ,
            text=True,
            timeout=60,
            check=False,
            **{**settings, **more},  # type: ignore[arg-type]
        )

    def code(self, *arguments: str) -> int:
        return self.validate("--quiet", *arguments).returncode


@pytest.fixture(scope="module")
def library() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chg-validate-") as name:
        Path(name).chmod(0o755)
        yield install_driver(Path(name) / "nvml")


@pytest.fixture
def place(library: Path) -> Iterator[Place]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    with tempfile.TemporaryDirectory(prefix="chg-validate-") as name, PrivateRedis() as server:
        state = fake_nvml.FakeState(Path(name) / "state")
        environ = {
            **inherited,
            **state.env("n1"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CANHAZGPU_STORE_URL": server.url,
            "CANHAZGPU_VALIDATION_NVML_LIBRARY": str(library),
            "CANHAZGPU_NODE_NAME": "n1",
        }
        yield Place(state.add_node("n1", 2), server, environ)


def test_each_exit_code(place: Place) -> None:
    assert place.code() == 0
    assert place.code("--expected-gpus", "3") == 2
    with fake_nvml.start_gpu_process(place.gpus.gpu(1), 5000, name="rogue") as rogue:
        used = place.validate()
    assert used.returncode == 1
    assert f"PID {rogue.pid} (rogue)" in used.stdout.splitlines()[0]
    place.gpus.gpu(1).remove()
    assert place.code() == 0
    place.gpus.inject("nvmlInit", return_=9)
    assert place.code() == 3


def test_a_lost_gpu_is_told_after_a_scan_that_had_it(place: Place) -> None:
    assert place.code("--publish") == 0
    place.gpus.gpu(1).remove()

    lost = place.validate()

    assert lost.returncode == 2
    assert lost.stdout.startswith("GPUS CRITICAL - n1: 1 of 2 GPUs are there")
    assert "was there before, and is gone" in lost.stdout
    # Further scans that lack it do not make it forgotten; whoever took it out says so.
    assert [place.code("--publish") for _ in range(3)] == [2, 2, 2]
    assert place.code("--publish", "--expected-gpus", "1") == 0
    assert place.code() == 0


def test_the_right_to_read_is_enough_except_to_publish(place: Place) -> None:
    with place.server.client() as client:
        client.execute_command("ACL", "SETUSER", *READER.split())
    place.environ["CANHAZGPU_STORE_URL"] = place.server.url.replace("unix://", "unix://reader:x@")

    assert place.code() == 0
    assert place.code("--publish") == 3


def test_publishing_lists_the_node(place: Place) -> None:
    assert place.code("--publish") == 0

    ledger = RedisLedger(StoreConfig(url=place.server.url), Role.READ)
    assert [view.node for view in ledger.read_nodes()] == ["n1"]


def test_without_the_store_one_cannot_tell(place: Place) -> None:
    place.server.kill()

    done = place.validate()

    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith(
        "GPUS UNKNOWN - n1: the reservations cannot be read: cannot reach the store"
    )


def test_a_driver_that_hangs(place: Place) -> None:
    place.gpus.inject("nvmlDeviceGetCount", hang=True)
    place.environ["CANHAZGPU_VALIDATION_SCAN_TIMEOUT_S"] = "0.5"

    assert place.code() == 3


@pytest.mark.parametrize("file", ["", "garbage = [", "[validation]\nno_such_key = 1\n", None])
def test_a_configuration_file_that_cannot_be_read(
    place: Place, file: str | None, tmp_path: Path
) -> None:
    config = tmp_path / "canhazgpu.toml"
    if file is not None:
        config.write_text(file)
    place.environ["CANHAZGPU_CONFIG"] = str(config)

    assert place.code() == (0 if file == "" else 3)


def test_who_reads_only_a_part_still_gets_the_verdict(place: Place) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with fake_nvml.start_gpu_process(place.gpus.gpu(1), 5000, name="rogue"):
        done = place.validate(stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.release
def test_output_that_cannot_be_written_is_no_verdict(place: Place) -> None:
    with Path("/dev/full").open("w") as full:
        done = place.validate(stdout=full)

    assert done.returncode == 3
    assert "No space left on device" in done.stderr


def test_no_locale_and_no_environment_as_slurmd_gives_it(place: Place) -> None:
    kept = {
        name: value
        for name, value in place.environ.items()
        if name.startswith(("CANHAZGPU_", "PYTHONPATH", "FAKE_NVML"))
    }
    place.environ = {**kept, "SLURMD_NODENAME": "n1"}

    with fake_nvml.start_gpu_process(place.gpus.gpu(1), 5000, name="r\xf6gue"):
        assert place.validate().returncode == 1

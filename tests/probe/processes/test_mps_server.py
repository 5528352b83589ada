"""NVIDIA's MPS server is known by its program's file and that file's owner, not by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json
from canhazgpu.probe.processes.proc_files import MPS_SERVER, read_process

NOBODY = 65534


@contextmanager
def running(program: Path, uid: int = 0) -> Iterator[int]:
    with subprocess.Popen([program, "60"], user=uid) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def server() -> Iterator[Path]:
    """A program of root's with the server's name, that everybody may run."""
    with TemporaryDirectory(prefix="chg-mps-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        program = directory / MPS_SERVER
        shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
        yield program


def is_server(pid: int) -> bool:
    entry = read_process(pid, owned=True)
    assert entry is not None
    return entry.is_mps_server


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_the_server_is_known_whoever_runs_it(server: Path, uid: int) -> None:
    with running(server, uid) as pid:
        assert is_server(pid)


def test_a_replaced_file_is_still_the_servers(server: Path) -> None:
    with running(server) as pid:
        server.unlink()
        assert is_server(pid)


def test_a_program_of_another_user_is_not_the_server(server: Path) -> None:
    os.chown(server, NOBODY, NOBODY)
    with running(server, NOBODY) as pid:
        assert not is_server(pid)


def test_another_program_with_the_servers_name_is_not_the_server(tmp_path: Path) -> None:
    link = tmp_path / MPS_SERVER
    link.symlink_to(shutil.which("sleep") or "/bin/sleep")
    with running(link) as pid:
        assert not is_server(pid)


def test_only_a_scan_with_a_server_has_the_field() -> None:
    def scan(process: GpuProcess) -> Scan:
        return Scan("n1", 0.0, 0.1, (GpuReading(0, "GPU-a", 0, "H100", 1, 2, (process,)),))

    plain = scan(GpuProcess(7, 0, "root", "x", 5))
    served = scan(GpuProcess(7, 0, "root", "x", 5, is_mps_server=True))
    assert "is_mps_server" not in scan_to_json(plain)
    assert scan_from_json(scan_to_json(plain)) == plain
    assert scan_from_json(scan_to_json(served)) == served

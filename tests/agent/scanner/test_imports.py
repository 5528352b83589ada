"""A scanner is forked from a process that has imported all it needs: it imports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fake_nvml
from canhazgpu.agent.socket_files import SCANNER_SOCKET

PROGRAM = r"""
import json, os, socket, sys
from pathlib import Path
from canhazgpu.agent.scanner import server

assert "libnvidia-ml" not in Path("/proc/self/maps").read_text(), "nothing is opened yet"
imported = Path(sys.argv[1])

class Watch:
    def find_spec(self, name, path=None, target=None):
        with imported.open("a") as stream:
            stream.write(name + "\n")

path = Path(sys.argv[2])
listening = socket.socket(socket.AF_UNIX)
listening.bind(str(path))
listening.listen()
sys.meta_path.insert(0, Watch())
parent = os.getpid()
if os.fork() == 0:
    try:
        server.serve(listening, idle_s=5, parent=parent)
    finally:
        os._exit(0)
sys.meta_path.pop(0)
from canhazgpu.agent.scanner import client
from canhazgpu.config.schema import ValidationConfig

client.MAX_TAKEN_TIME_S = 60.0
client.TAKEN_TIME_SHARE = 1.0

def refuse(*_):
    raise AssertionError

for source in ("nvml", "nvidia-smi", "nvml"):
    validation = ValidationConfig(
        probe=source, nvml_library=sys.argv[3], nvidia_smi=sys.argv[4], scan_timeout_s=60.0
    )
    none = Path("/nowhere")
    seen = client.scanner_probe("n1", validation, none, none, bool, path, refuse).start().observe()
    assert seen.scan.fault is None, seen.scan.fault
    assert len(seen.scan.gpus[0].processes) == 1
os.wait()
"""


@pytest.mark.slow
def test_a_scanner_and_its_readers_import_nothing(
    node: fake_nvml.FakeNode, library: Path, place: Path
) -> None:
    node.gpu(0).add_process(os.getpid(), 5000)
    imported = place / "imported"
    imported.touch()
    arguments = [imported, place / SCANNER_SOCKET, library, library.with_name("nvidia-smi")]
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, *arguments], check=True, timeout=120)
    assert imported.read_text().split() == []

"""What the client of people's commands imports: Python's start is most of its time."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

CLIENT = """
import sys
sys.path.append(sys.argv[1])
import canhazgpu.agent.command_client.main
from canhazgpu.agent.command_client.outcome import require_executable
require_executable(["sh"])
from canhazgpu.people.command_exec import exec_command
print(*sorted(sys.modules))
"""
LONG = {
    "argparse",
    "click",
    "collections",
    "dataclasses",
    "functools",
    "inspect",
    "json",
    "pathlib",
}
LONG |= {"re", "shutil", "socket", "subprocess", "typing"}


def test_a_run_through_the_agent_imports_nothing_that_takes_long() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CLIENT, sysconfig.get_path("purelib")],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.split())

    assert "canhazgpu.people.command_exec" in imported
    assert not imported & LONG

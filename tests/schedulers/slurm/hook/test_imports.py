"""A hook's first steps: what it says where it cannot, and the scan before all that it imports."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize("hook", ["prolog.main", "epilog.main", "epilog.health_check"])
def test_a_hook_that_cannot_say_anything_is_no_fault_of_the_node(node: Any, hook: str) -> None:
    node.server.kill()
    (node.files / "config.toml").write_text("nonsense")
    program = 'exec "$0" -I -m "$1" >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", program, sys.executable, f"canhazgpu.{hook}"],
        env=node.environ(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
def test_the_scan_is_under_way_before_the_rest_is_imported_and_it_is_the_one_that_counts(
    node: Any,
) -> None:
    program = """
import sys
from canhazgpu.probe.node_probe import NodeProbe
start = NodeProbe.start
def told(probe):
    print("canhazgpu.ledger.local.fallback_ledger" in sys.modules)
    return start(probe)
NodeProbe.start = told
from canhazgpu.prolog.main import main
main()
"""
    done = node.new_python("-c", program)
    # The second is the look at what was granted.
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\nTrue\n", "")
    assert len(node.owners_by_gpu()) == 2


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
def test_a_fault_before_anything_has_begun_is_told_and_drains_nothing(node: Any) -> None:
    program = """
from canhazgpu.schedulers.slurm.hook import startup
def load(environ):
    raise RuntimeError("no such luck")
startup.load = load
from canhazgpu.prolog.main import main
main()
"""
    done = node.new_python("-c", program)
    assert (done.returncode, done.stdout) == (0, "")
    assert "RuntimeError: no such luck (please report this)" in done.stderr


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize("hook", ["prolog.main", "epilog.main", "epilog.health_check"])
def test_nothing_is_imported_while_a_deadline_runs(node: Any, hook: str) -> None:
    node.configure(
        validation={"accounting": "auto"},
        slurm={"job_report": "admin_comment"},
        metrics={"dcgm_mapping_dir": str(node.files / "mapping")},
    )
    program = f"""
import os, signal, sys
own = os.getpid()
class Finder:
    def find_spec(name, path=None, target=None):
        if os.getpid() == own and signal.getitimer(signal.ITIMER_REAL)[0]:
            print(name)
sys.meta_path.insert(0, Finder)
from canhazgpu.{hook} import main
main()
"""
    done = node.new_python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

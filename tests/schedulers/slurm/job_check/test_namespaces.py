"""Tasks in mount namespaces made by hand, which stand for containers and private directories."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from polling import poll_until

from canhazgpu.templates.render import render

from .conftest import JobNode, client_path

pytestmark = pytest.mark.slow
RUN = """
echo 0 >"$1/cgroup.procs" || exit 9
[ -z "$2" ] || mount -t tmpfs none "$2" || exit 9
exec /usr/bin/setpriv --reuid="$3" --regid="$4" --clear-groups /bin/sh "$5"
"""


def told(node: JobNode, hidden: Path | None) -> list[str]:
    """What the task prolog of job 12 says with an empty file system at `hidden`."""
    script = node.files / "task_prolog.sh"
    values = {
        "state_dir": str(node.agent.state_dir),
        "python": sys.executable,
        "job_client": client_path(),
        "people_socket_path": "/agent/agent.sock",
    }
    script.write_text(render("task_prolog.sh", values))
    user = pwd.getpwnam(node.users[0])
    given = [str(node.group), str(hidden or ""), str(user.pw_uid), str(user.pw_gid), str(script)]
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", RUN, "sh", *given],
        env={"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "1,2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_task_that_sees_the_socket_asks_from_another_namespace_too(
    job_node: JobNode, place: Path
) -> None:
    (place / "other").mkdir()
    said = told(job_node, place / "other")
    record = job_node.record()
    assert record is not None
    uuids = ",".join(one.uuid for one in record.gpus)
    assert f"export CANHAZGPU_GPUS={uuids}" in said
    poll_until(lambda: job_node.agent.served("CheckJob") == 1)


@pytest.mark.parametrize("what", ["state", "client"])
def test_a_task_that_cannot_ask_keeps_what_slurm_gave_it(job_node: JobNode, what: str) -> None:
    """The health check finds its job; the task is neither hidden its GPU nor told another."""
    hidden = job_node.agent.state_dir if what == "state" else Path(client_path()).parent
    assert told(job_node, hidden) == []
    assert job_node.agent.served("CheckJob") == 0
    job_node.assert_nothing_granted()


def test_a_private_directory_that_cannot_be_searched_hides_the_gpu(job_node: JobNode) -> None:
    directory = job_node.agent.state_dir / "jobs"
    directory.mkdir()
    directory.chmod(0o700)
    said = told(job_node, None)
    assert said[0] == "export CUDA_VISIBLE_DEVICES=" and "cannot be searched" in said[1]
    assert job_node.agent.served("CheckJob") == 0
    os.rmdir(directory)  # noqa: PTH106 - as it was made

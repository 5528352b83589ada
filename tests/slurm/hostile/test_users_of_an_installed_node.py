"""Users who mean harm, on a node with Slurm, canhazgpu's hooks and its agent, all as installed.

They are real Unix users, and whatever they do they do as their job, by sudo, or by hand.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from hosts.hostile_node import EVIL, PROCESS_NAME, unsafe_parts
from polling import poll_until

import fake_nvml
from demo_cluster import ClusterSpec

ATTACK = Path(__file__).with_name("attack.py")
SHOW = 'echo "got $CUDA_VISIBLE_DEVICES $EVIL"'
MODULES = ("sitecustomize", "usercustomize", "json", "canhazgpu", "redis", "queue", "click")
MARKER = """
import os
if os.geteuid() == 0:
    open({marker!r}, "w").write(__name__)
"""
PRELOAD = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    if (geteuid() == 0) open("%s", O_CREAT | O_WRONLY, 0644);
}
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=1, gpus_per_node=2), way="agent")


@pytest.fixture(autouse=True)
def _all_is_well_afterwards(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[None]:
    """The agent is the one that it was, the node is up, and the next job gets all GPUs."""
    assert cluster.agents is not None
    agent = cluster.agents.status("n1")["pid"]
    yield
    cluster.configure()
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()
    assert cluster.agents.status("n1")["pid"] == agent
    job = cluster.slurm.submit(SHOW, "--gres=gpu:2", user=people[1])
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
    assert cluster.slurm.output(job, user=people[1]).count("GPU-") == 2
    cluster.slurm.wait_nodes_idle()
    poll_until(lambda: cluster.held() == {}, "nobody to hold a GPU")


def roots_processes(cluster: GpuCluster) -> list[int]:
    """The agent and all that it and slurmd have started, but the steps of jobs."""
    assert cluster.agents is not None
    agent = int(cluster.agents.status("n1")["pid"])
    found = [agent, os.getpid()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                is_root = (entry / "environ").stat().st_uid == 0
            except OSError:
                continue
            if is_root and int(words[1]) == agent:
                found.append(int(entry.name))
    return found


def test_a_job_changes_nothing_of_the_nodes_and_ends_nothing_of_roots(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    alice, bob = people
    state, home = cluster.root / "run" / "n1", cluster.slurm.home(alice)
    script = home / "attack.py"
    shutil.copy(ATTACK, script)
    script.chmod(0o644)
    theirs = cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=bob)
    poll_until(lambda: list(cluster.held().values()) == [str(theirs)])
    before = cluster.held()
    pids = " ".join(map(str, roots_processes(cluster)))
    job = cluster.slurm.submit(
        f"/usr/bin/python3 -I {script} {state} {home} $SLURM_JOB_ID {pids}",
        "--gres=gpu:1", user=alice,
    )  # fmt: skip

    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"

    done = cluster.slurm.output(job, user=alice).splitlines()
    # The first line is that it may read its own record, as the task prolog does.
    assert done == ["", "tried"]
    poll_until(lambda: cluster.held() == before)
    assert cluster.slurm.job(theirs)["JobState"] == "RUNNING"


def test_the_same_succeeds_against_what_is_ones_own(
    cluster: GpuCluster, people: tuple[str, str]
) -> None:
    """Otherwise it would prove nothing."""
    alice, home = people[0], cluster.slurm.home(people[0])
    script = home / "attack.py"
    shutil.copy(ATTACK, script)
    script.chmod(0o644)
    own = cluster.slurm.popen(["sleep", "600"], user=alice)
    program = (
        f"mkdir -p own/jobs && echo x >own/jobs/1.json && python3 -I {script} own . 1 {own.pid}"
    )
    done = cluster.slurm.run(["/bin/sh", "-c", program], user=alice, check=True)
    own.communicate()
    said = done.stdout
    for what in ("writes in own\n", "appends to own/jobs/1.json\n", "removes own/jobs\n"):
        assert what in said
    assert f"sends SIGKILL to {own.pid}\n" in said


@pytest.fixture
def trap(cluster: GpuCluster, people: tuple[str, str]) -> Iterator[Path]:
    """A directory of a user's with what would run as root, if root looked there."""
    place = cluster.slurm.home(people[0]) / "trap"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    marker = MARKER.format(marker=str(place / "was-root"))
    for name in MODULES:
        (place / f"{name}.py").write_text(marker)
    (place / "sh").write_text(f"#!/bin/sh\n[ $(id -u) -ne 0 ] || touch {place}/was-root\n")
    shutil.copy(place / "sh", place / "scontrol")
    for name in ("sh", "scontrol"):
        (place / name).chmod(0o755)
    source = place / "preload.c"
    source.write_text(PRELOAD % (place / "was-root"))
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", place / "preload.so"], check=True)
    (place / "config.toml").write_text(f'[node]\nstate_dir = "{place}/run"\n')
    (place / "slurm.conf").write_text(f"SlurmdLogFile={place}/log\n")
    (place / ".config" / "canhazgpu").mkdir(parents=True)
    shutil.copy(place / "config.toml", place / ".config" / "canhazgpu")
    account = pwd.getpwnam(people[0])
    for path in (place, *place.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    for name, program in (
        ("PYTHONPATH", ["/usr/bin/python3", "-c", "import redis"]),
        ("LD_PRELOAD", ["/bin/true"]),
    ):
        # It would be seen.
        subprocess.run(program, env={name: evil_variables(place)[name]}, check=True)
        (place / "was-root").unlink()
    yield place
    shutil.rmtree(place)


def evil_variables(trap: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(trap),
        "PYTHONHOME": str(trap),
        "PYTHONSTARTUP": str(trap / "json.py"),
        "PYTHONUSERBASE": str(trap),
        "PYTHONPYCACHEPREFIX": str(trap),
        "PYTHONINSPECT": "1",
        "LD_PRELOAD": str(trap / "preload.so"),
        "LD_LIBRARY_PATH": str(trap),
        "BASH_ENV": str(trap / "sh"),
        "ENV": str(trap / "sh"),
        "HOME": str(trap),
        "XDG_CONFIG_HOME": str(trap / ".config"),
        "XDG_RUNTIME_DIR": str(trap),
        "CANHAZGPU_CONFIG": str(trap / "config.toml"),
        "CANHAZGPU_STORE_URL": "redis://192.0.2.1:1",
        "CANHAZGPU_NODE_STATE_DIR": str(trap / "run"),
        "CANHAZGPU_AGENT_SOCKET": str(trap / "agent.sock"),
        "CANHAZGPU_SLURM_BIN_DIR": str(trap),
        "SLURM_CONF_SERVER": "192.0.2.1",
        "SLURMD_NODENAME": "../../x",
        "HOOK_LOST_S": "-1",
        "HOOK_EXIT_CODE": "9",
    }


def root_took_nothing(trap: Path) -> bool:
    return not (trap / "was-root").exists() and not (trap / "run").exists()


def test_variables_of_a_job_reach_no_hook_of_roots(
    cluster: GpuCluster, people: tuple[str, str], trap: Path
) -> None:
    """Of a job that is submitted with them, below a directory of such modules."""
    variables = {
        name: value
        for name, value in evil_variables(trap).items()
        # These the job's own programs, and its task prolog, could not start with.
        if not name.startswith(("LD_", "PYTHONHOME")) and name != "SLURM_CONF_SERVER"
    }
    given = ",".join(f"{name}={value}" for name, value in variables.items())
    words = ["/usr/bin/env", f"LD_PRELOAD={trap / 'preload.so'}"]
    script = "\n".join(["#!/bin/sh", SHOW, 'echo "and $PYTHONPATH"'])
    done = cluster.slurm.run(
        [*words, "sbatch", "--parsable", f"--chdir={trap}", f"--export=ALL,{given}",
         "--gres=gpu:1", "--output=job.out"],
        user=people[0], stdin_text=script, check=True,
    )  # fmt: skip
    job = int(done.stdout)

    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"

    said = (trap / "job.out").read_text()
    assert "got GPU-" in said and f"and {trap}" in said
    assert root_took_nothing(trap)


def sudo(
    cluster: GpuCluster, user: str, rule: str, environ: Mapping[str, str], place: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a command by sudo, as the user, in a mount namespace that has this rule alone."""
    account = pwd.getpwnam(user)
    rules = cluster.root / "sudoers"
    rules.write_text(f"{rule}\nroot ALL=(ALL) ALL\n")
    rules.chmod(0o440)
    variables = shlex.join(f"{name}={value}" for name, value in environ.items())
    program = (
        f"mount --bind {rules} /etc/sudoers && cd {place} &&"
        f" exec setpriv --reuid {account.pw_uid} --regid {account.pw_gid} --clear-groups"
        f" /usr/bin/env {variables} /usr/bin/sudo -n {shlex.join(words)}"
    )
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", program],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/usr/bin/sudo").exists(), reason="needs sudo")
def test_variables_of_a_user_reach_nothing_that_sudo_runs(
    cluster: GpuCluster, people: tuple[str, str], trap: Path
) -> None:
    """A user who may run one command of canhazgpu as root runs nothing else as root."""
    assert cluster.health_check("n1").returncode == 0  # from now on the node is known
    program = str(cluster.venv / "bin" / "canhazgpu")
    config = ("--config", str(cluster.config_file))
    rule = f"{people[0]} ALL=(root) NOPASSWD: {program}"
    for words in (["admin", "nodes", "--json"], ["status", "--json"], ["config", "show"]):
        done = sudo(cluster, people[0], rule, evil_variables(trap), trap, program, *config, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert str(trap) not in done.stdout
    assert root_took_nothing(trap)
    refused = sudo(cluster, people[1], rule, {}, trap, program, *config, "admin", "nodes")
    assert refused.returncode == 1


PYTHONS_OWN = frozenset({"PYTHONPYCACHEPREFIX", "PYTHONSTARTUP"})
"""Python heeds these, and sudo itself removes none of them."""
KEEPS = "PYTHON* LD_* BASH_ENV ENV SLURM* SLURMD_NODENAME XDG_* TMPDIR HOOK_*"


@pytest.mark.skipif(not Path("/usr/bin/sudo").exists(), reason="needs sudo")
@pytest.mark.parametrize("words", [["status", "--json"], ["admin", "nodes"], ["hooks", "check"]])
@pytest.mark.parametrize("defaults", ["!env_reset", f'env_keep += "{KEEPS}"'])
def test_where_sudo_passes_a_users_environment_canhazgpu_takes_nothing_of_it(
    cluster: GpuCluster,
    people: tuple[str, str],
    trap: Path,
    defaults: str,
    words: list[str],
) -> None:
    """Python in the isolated mode heeds none of its own; of Slurm's and XDG's none is looked at."""
    program = str(cluster.venv / "bin" / "canhazgpu")
    isolated = [str(cluster.venv / "bin" / "python3"), "-I", program]
    config = ("--config", str(cluster.config_file))
    rule = f"Defaults {defaults}\n{people[0]} ALL=(root) NOPASSWD: {' '.join(isolated)} *"
    environ = {
        name: value
        for name, value in evil_variables(trap).items()
        if not name.startswith("CANHAZGPU_")
    } | {"TMPDIR": str(trap), "SLURM_CONF": str(trap / "slurm.conf"), "SLURM_JOB_ID": "1"}
    before = {one: one.lstat() for one in trap.rglob("*")}

    done = sudo(cluster, people[0], rule, environ, trap, *isolated, *config, *words)

    assert "Traceback" not in done.stderr, done.stderr
    assert root_took_nothing(trap)
    after = {one: one.lstat() for one in trap.rglob("*")}
    assert {one: known.st_uid for one, known in after.items()} == {
        one: known.st_uid for one, known in before.items()
    }


@pytest.mark.skipif(not Path("/usr/bin/sudo").exists(), reason="needs sudo")
def test_what_a_rule_that_passes_everything_passes_can_be_taken_back_for_canhazgpu(
    cluster: GpuCluster, people: tuple[str, str], trap: Path
) -> None:
    """The keys of the configuration are read from root's environment, whoever has filled it."""
    program = str(cluster.venv / "bin" / "canhazgpu")
    environ = {
        name: value
        for name, value in evil_variables(trap).items()
        if name not in PYTHONS_OWN and name != "CANHAZGPU_CONFIG"
    }
    allowed = f"{people[0]} ALL=(root) NOPASSWD: {program}"
    words = (program, "--config", str(cluster.config_file), "config", "show")
    passed = sudo(cluster, people[0], f"Defaults !env_reset\n{allowed}", environ, trap, *words)
    assert "environment CANHAZGPU_NODE_STATE_DIR" in passed.stdout
    assert root_took_nothing(trap)
    back = f"Defaults !env_reset\nDefaults!{program} env_reset\n{allowed}"
    done = sudo(cluster, people[0], back, evil_variables(trap), trap, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(trap) not in done.stdout and "192.0.2.1" not in done.stdout
    assert root_took_nothing(trap)


@pytest.mark.parametrize("policy", ["requeue", "drain", "warn"])
def test_names_command_no_log_no_comment_and_no_task(
    cluster: GpuCluster, people: tuple[str, str], policy: str
) -> None:
    """The job's name, and that of the process that is in its way."""
    alice, bob = people
    name = EVIL.replace("\0", "").replace("\ud800", "") + "\nexport EVIL=yes\nprint x"
    cluster.configure(slurm={"on_conflict": policy})
    log = Path(cluster.slurm.layout.log("n1"))
    read = log.stat().st_size
    gpus = cluster.state.node("n1").gpus
    with (
        fake_nvml.start_gpu_process(gpus[0], 8000, bob, name=PROCESS_NAME),
        fake_nvml.start_gpu_process(gpus[1], 8000, bob, name=PROCESS_NAME),
    ):
        job = cluster.slurm.submit(SHOW, "--gres=gpu:2", f"--job-name={name}", user=alice)
        shown = poll_until(
            lambda: (text := comments(cluster, job)) and "canhazgpu" in text and text
        )
        cluster.slurm.run(["scancel", str(job)])
    if policy == "drain":
        cluster.slurm.run(["scontrol", "update", "NodeName=n1", "State=resume"])
    cluster.slurm.wait_nodes_idle()
    with log.open("rb") as stream:
        stream.seek(read)
        logged = stream.read().decode("utf-8", "surrogateescape")
    ours = [line for line in logged.splitlines() if "canhazgpu" in line]
    assert ours
    assert [part for line in (*ours, shown) for part in unsafe_parts(line)] == []
    assert "yes" not in cluster.slurm.output(job, user=alice)


def comments(cluster: GpuCluster, job: int) -> str:
    """What Slurm has of ours about the job and the node; the job's name is not asked for."""
    told = cluster.slurm.run(["squeue", "-h", "-j", str(job), "-o", "%k"]).stdout
    node = cluster.slurm.run(["scontrol", "show", "node", "n1", "-o"]).stdout
    return f"{told.strip()} {node.partition('Reason=')[2].strip()}"

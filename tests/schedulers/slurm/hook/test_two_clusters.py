"""Jobs of two clusters with one number on one node: nobody takes one for the other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hook_jobs import gpus_in_book, job_variables, node_events, owners_in_book
from hosts.no_agent import NO_AGENT

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.templates.render import render

pytestmark = pytest.mark.slow

MAIN = "from canhazgpu.cli.main import main; main()"
ALPHA, BETA = "job:alpha:7:0", "job:beta:7:0"
ODD = "The %@ \u00e9"
ODD_OWNER = "The%20%25%40%20%c3%a9"


def job(cluster: str, gpus: str = "0,1", attempt: int = 0, number: int = 7) -> dict[str, str]:
    return {**job_variables(number, gpus, attempt), "SLURM_CLUSTER_NAME": cluster}


def start_both(node: Any, second: str = "beta") -> None:
    node.run("prolog", **job("alpha", "0,1"), SLURM_JOB_USER="ann")
    node.run("prolog", **job(second, "2,3"), SLURM_JOB_USER="bob")


def owners(node: Any) -> list[str]:
    return sorted(node.owners_by_gpu().values())


def task(node: Any, cluster: str | None, visible: str) -> list[str]:
    """What the task prolog tells a task of job 7."""
    script = node.files / "task_prolog.sh"
    script.write_text(render("task_prolog.sh", {"state_dir": str(node.files / "run"), **NO_AGENT}))
    environ = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": visible}
    if cluster is not None:
        environ["SLURM_CLUSTER_NAME"] = cluster
    done = subprocess.run(
        ["/bin/sh", str(script)], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def exported(node: Any, cluster: str | None, visible: str) -> set[str]:
    lines = task(node, cluster, visible)
    (gpus,) = [one for one in lines if one.startswith("export CANHAZGPU_GPUS=")]
    return set(gpus.partition("=")[2].split(","))


def held(node: Any, owner: str) -> set[str]:
    return {gpu for gpu, one in node.owners_by_gpu().items() if one == owner}


def command(node: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    return node.python("-c", MAIN, *arguments, environ=environ)


def test_each_job_has_its_own_reservations_records_and_end(node: Any) -> None:
    start_both(node)

    assert owners(node) == [ALPHA, ALPHA, BETA, BETA]
    assert owners_in_book(node) == node.owners_by_gpu()
    assert node.record_files() == {"7.json", "7.env", "7@beta.json", "7@beta.env"}
    assert exported(node, "alpha", "0,1") == held(node, ALPHA)
    assert exported(node, "beta", "2,3") == held(node, BETA)

    node.run("epilog", **job("alpha", "0,1"))
    assert owners(node) == [BETA, BETA] and gpus_in_book(node, ALPHA) == set()
    assert node.record_files() == {"7@beta.json", "7@beta.env"}
    assert exported(node, "beta", "2,3") == held(node, BETA)

    node.run("epilog", **job("beta", "2,3"))
    assert owners(node) == [] and node.record_files() == set()


@pytest.mark.parametrize("first_to_end", ["alpha", "beta"])
def test_an_epilog_without_gpus_ends_its_own_job(node: Any, first_to_end: str) -> None:
    start_both(node)

    node.run("epilog", **job(first_to_end, ""))

    other = BETA if first_to_end == "alpha" else ALPHA
    assert owners(node) == [other, other]


def test_a_third_job_of_the_number_after_one_ended(node: Any) -> None:
    start_both(node)
    node.run("epilog", **job("alpha", "0,1"))
    node.run("prolog", **job("gamma", "0,1"))

    assert exported(node, "gamma", "0,1") == held(node, "job:gamma:7:0")
    assert exported(node, "beta", "2,3") == held(node, BETA)
    node.run("epilog", **job("beta", "2,3"))
    node.run("epilog", **job("gamma", "0,1"))
    assert owners(node) == [] and node.record_files() == set()


def test_another_attempt_of_one_leaves_the_other(node: Any) -> None:
    start_both(node)

    node.run("prolog", **job("beta", "2,3", attempt=1))

    assert owners(node) == [ALPHA, ALPHA, "job:beta:7:1", "job:beta:7:1"]
    node.run("epilog", **job("beta", "2,3", attempt=1))  # that of attempt 0, which comes late
    assert len(owners(node)) == 4
    node.run("epilog", **job("alpha", "0,1"))
    assert owners(node) == ["job:beta:7:1"] * 2


def test_neither_gets_what_the_other_holds(node: Any) -> None:
    node.slurm()
    node.run("prolog", **job("alpha", "0,1,2,3"), SLURM_JOB_USER="ann")
    node.run("prolog", **job("beta", "0,1"))

    assert owners(node) == [ALPHA] * 4
    last = node_events(node, "prolog")[-1]
    assert last.claim.owner == BETA and last.facts["outcome"] == "refused"
    # Where canhazgpu could give it none, its task is not told the other's GPUs.
    assert not any("CANHAZGPU_GPUS=" in one for one in task(node, "beta", "0,1"))


def test_without_the_store_too(node: Any) -> None:
    node.server.kill()
    start_both(node)

    assert sorted(owners_in_book(node).values()) == [ALPHA, ALPHA, BETA, BETA]
    node.run("epilog", **job("alpha", "0,1"))
    assert sorted(owners_in_book(node).values()) == [BETA, BETA]
    node.server.start()
    node.forget_outage()
    node.run("epilog", **job("beta", "2,3"))
    assert owners(node) == []
    told = {one.claim.owner for one in node_events(node, "grant") if one.claim}
    assert told == {ALPHA, BETA}


@pytest.mark.parametrize("damage", ["", "{", '{"format": 9}'])
def test_a_damaged_record_of_one_leaves_the_other(node: Any, damage: str) -> None:
    start_both(node)
    (node.files / "run" / "jobs" / "7@beta.json").write_text(damage)

    node.run("epilog", **job("beta", "2,3"))

    assert owners(node) == [ALPHA, ALPHA]
    assert exported(node, "alpha", "0,1") == held(node, ALPHA)


def test_a_cluster_of_any_name(node: Any) -> None:
    start_both(node, ODD)

    assert f"7@{ODD_OWNER}.env" in node.record_files()
    assert exported(node, ODD, "2,3") == held(node, f"job:{ODD_OWNER}:7:0")
    assert exported(node, "alpha", "0,1") == held(node, ALPHA)
    node.run("epilog", **job(ODD, "2,3"))
    assert owners(node) == [ALPHA, ALPHA]


def test_the_health_check_of_one_cluster_leaves_the_others_job(node: Any) -> None:
    start_both(node)
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("ClusterName=alpha\n")
    node.slurm(squeue="true")  # no job runs here, says alpha's Slurm

    done = node.python("-m", "canhazgpu.epilog.health_check", environ=node.environ())

    assert done.returncode == 0
    assert owners(node) == [BETA, BETA]
    assert node.record_files() == {"7@beta.json", "7@beta.env"}
    assert exported(node, "beta", "2,3") == held(node, BETA)


def test_explain_tells_them_apart(node: Any) -> None:
    start_both(node)

    unclear = command(node, "explain", "7")
    assert unclear.returncode == 2
    assert "--cluster alpha (alpha, beta)" in unclear.stderr
    for cluster, user in (("alpha", "ann"), ("BETA", "bob")):
        told = command(node, "explain", "7", "--cluster", cluster)
        assert told.stdout.startswith(f"job 7 of {user}\n"), told.stderr
        assert f"on record on n1: job:{cluster.lower()}:7:0" in told.stdout
        found = json.loads(command(node, "explain", "7", "--cluster", cluster, "--json").stdout)
        assert {one["cluster"] for one in found["events"]} == {cluster.lower()}
        assert found["here"]["record"]["user"] == user

    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("ClusterName=beta\n")
    own = command(node, "explain", "7")
    assert own.stdout.startswith("job 7 of bob\n")
    assert "also in: alpha" in own.stderr


def test_events_name_the_cluster_where_there_are_several(node: Any) -> None:
    node.run("prolog", **job("alpha", "0,1"))
    assert "of cluster" not in command(node, "events").stdout
    node.run("prolog", **job("beta", "2,3"))

    lines = command(node, "events").stdout.splitlines()

    assert sum("(job 7) of cluster alpha" in one for one in lines) == 3
    assert sum("(job 7) of cluster beta" in one for one in lines) == 3


def test_a_task_that_names_no_cluster_reads_the_record_with_the_number_alone(node: Any) -> None:
    start_both(node)

    assert exported(node, None, "0,1") == held(node, ALPHA)


def test_a_record_of_the_release_before_is_read_as_it_was(node: Any) -> None:
    node.run("prolog", **job("alpha", "0,1"))
    path: Path = node.files / "run" / "jobs" / "7.env"
    path.write_text(path.read_text().replace("export cluster=alpha\n", ""))

    assert exported(node, "alpha", "0,1") == held(node, ALPHA)
    node.run("prolog", **job("beta", "2,3"))
    assert exported(node, "beta", "2,3") == held(node, BETA)


def test_a_task_is_not_told_of_another_clusters_job(node: Any) -> None:
    node.run("prolog", **job("alpha", "0,1"))
    (node.files / "run" / "jobs" / "7.warning").write_text("canhazgpu: for alpha alone\n")

    assert "print canhazgpu: for alpha alone" in task(node, "alpha", "0,1")
    for line in task(node, "beta", "2,3"):
        assert "for alpha alone" not in line
        assert "CANHAZGPU_GPUS=" not in line


def as_another_machine(node: Any) -> None:
    """Go on as a machine of cluster beta that has this node's name too."""
    node.configure(node={"state_dir": str(node.files / "other")})
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("ClusterName=beta\n")
    node.slurm(squeue='case $* in *--nodelist*) ;; *) echo "7 7 RUNNING" ;; esac')


def test_another_clusters_machine_of_the_same_name_is_refused_until_it_has_a_prefix(
    node: Any,
) -> None:
    node.run("prolog", **job("alpha", "0,1"))
    as_another_machine(node)

    node.run("prolog", **job("beta", "2,3"))
    node.run("epilog", **job("beta", "2,3"))
    check = node.python("-m", "canhazgpu.epilog.health_check", environ=node.environ())
    reserve = command(node, "reserve", "--gpus", "1", "--duration", "1h")

    assert owners(node) == [ALPHA, ALPHA]
    assert any(one.startswith("scontrol requeue") for one in node.scheduler_orders())
    for told in (node.log(), reserve.stderr):
        assert "n1 as a node of cluster 'alpha'" in told
        assert "store.prefix" in told and "canhazgpu admin forget n1" in told
    assert (check.returncode, reserve.returncode) == (0, 2)

    node.configure(store={"prefix": "beta"})
    node.run("prolog", **job("beta", "0,1"))
    own = RedisLedger(StoreConfig(url=node.server.url, prefix="beta"), Role.READ)
    (view,) = own.read_nodes()
    assert {one.claim.owner for one in view.reservations.values()} == {BETA}
    assert owners(node) == [ALPHA, ALPHA]


def test_a_node_that_its_cluster_gave_away_is_forgotten_and_taken(node: Any) -> None:
    node.run("prolog", **job("alpha", "0,1"))
    node.run("epilog", **job("alpha", "0,1"))
    as_another_machine(node)
    node.run("prolog", **job("beta", "0,1"))
    assert owners(node) == []

    assert command(node, "admin", "forget", "n1").returncode == 0
    node.run("prolog", **job("beta", "0,1"))

    assert owners(node) == [BETA, BETA]

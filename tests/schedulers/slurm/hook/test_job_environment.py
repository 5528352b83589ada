"""What slurmd tells its hooks, as values; what makes no sense is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canhazgpu.errors import InputError
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim
from canhazgpu.schedulers.port import JobContext, claim_of
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf
from canhazgpu.schedulers.slurm.hook.job_environment import parse_job_context

LEAST = {"SLURM_JOB_ID": "12", "SLURM_JOB_UID": "1000"}
FULL = {
    **LEAST,
    "SLURM_JOB_GPUS": "0-1,5",
    "SLURM_JOB_USER": "ann",
    "SLURM_JOB_NAME": "train;\x1b[31m",
    "SLURM_JOB_END_TIME": "1700000000",
    "SLURM_JOB_RESTART_COUNT": "2",
    "SLURM_CLUSTER_NAME": "c1",
}


def test_all_that_slurmd_tells() -> None:
    job = parse_job_context(FULL, "n1")
    assert job == JobContext(
        JobOwner("c1", "12", 2), "n1", "ann", 1000, (0, 1, 5), 1700000000.0, "train;\x1b[31m"
    )
    assert claim_of(job, "slurm", "boot 1") == Claim(
        "job:c1:12:2", "slurm", "ann", 1000, "12", "train;\x1b[31m", 1700000000.0, "boot 1"
    )


def test_what_may_be_missing() -> None:
    assert parse_job_context(LEAST, "n1") == JobContext(
        JobOwner("cluster", "12", 0), "n1", "1000", 1000, ()
    )
    assert parse_job_context(LEAST | {"SLURM_JOB_END_TIME": "0", "SLURM_JOB_UID": "0"}, "n1") == (
        JobContext(JobOwner("cluster", "12", 0), "n1", "0", 0, ())
    )


@pytest.mark.parametrize(("seconds", "ends"), [(31535999, True), (31536000, False)])
def test_a_job_without_a_limit_has_no_end(seconds: int, ends: bool) -> None:
    times = {"SLURM_JOB_START_TIME": "1700000000", "SLURM_JOB_END_TIME": str(1700000000 + seconds)}
    assert (parse_job_context(LEAST | times, "n1").ends_at is not None) is ends


def test_the_run_of_a_job_is_named() -> None:
    job = parse_job_context(LEAST | {"SLURM_JOB_SLUID": "s5K1KKYAYG5D00"}, "n1")
    assert job.run_id == "s5K1KKYAYG5D00"


NO_NUMBERS = ["x", "-1", "1.5", " 1", "1 ", "0x1", "1\n", "٣", "9" * 20, "9" * 5000, "9" * 17]


@pytest.mark.parametrize("text", ["", *NO_NUMBERS])
@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_JOB_UID"])
def test_what_must_be_a_number_is_named(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"{name}=.* is not a number") as caught:
        parse_job_context(FULL | {name: text}, "n1")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("name", ["SLURM_JOB_RESTART_COUNT", "SLURM_JOB_END_TIME"])
def test_what_may_be_a_number_is_named(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"{name}=.* is not a number"):
        parse_job_context(FULL | {name: text}, "n1")


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_JOB_UID"])
def test_what_must_be_there_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=''"):
        parse_job_context({key: value for key, value in FULL.items() if key != name}, "n1")


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32])
def test_a_uid_that_no_user_has_is_refused(uid: int) -> None:
    with pytest.raises(InputError, match="SLURM_JOB_UID"):
        parse_job_context(FULL | {"SLURM_JOB_UID": str(uid)}, "n1")


@pytest.mark.parametrize("text", ["x", "0,", "0,,1", "1-0", "0,0", "gpu:2", "0-99999", "GPU-1"])
def test_gpus_that_make_no_sense_are_named(text: str) -> None:
    with pytest.raises(InputError, match="SLURM_JOB_GPUS"):
        parse_job_context(FULL | {"SLURM_JOB_GPUS": text}, "n1")


CLUSTERS = ["a:1", "a%3a1", "a b", "../x", "a/b", "lab+1", "ä", "Ä", "\udce4", "a" * 101, "a\n"]


def test_whatever_a_cluster_is_called_owners_are_kept_apart() -> None:
    jobs = [parse_job_context(FULL | {"SLURM_CLUSTER_NAME": text}, "n1") for text in CLUSTERS]
    assert len({job.owner.token for job in jobs}) == len(CLUSTERS)
    for job in jobs:
        assert re.fullmatch(r"job:[A-Za-z0-9_.%-]+:12:\d+", job.owner.token)


@pytest.mark.parametrize("name", ["Lab+1", "ÄB", "a:B", "x%3ay"])
def test_slurms_files_and_hooks_name_the_cluster_alike(tmp_path: Path, name: str) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(f"ClusterName={name}\n")
    # Slurm lowers the letters of ASCII alone.
    told = "".join(one.lower() if one.isascii() else one for one in name)
    job = parse_job_context(FULL | {"SLURM_CLUSTER_NAME": told}, "n1")
    assert read_node_conf(conf, "n1", "host").cluster == job.owner.cluster


@pytest.mark.parametrize(
    ("comment", "attempt", "requeues"),
    [
        ("canhazgpu: requeue 2/20: GPU 1 is in use", "2", 2),
        ("canhazgpu: requeue 2/20: GPU 1 is in use", "1", 1),
        ("mine", "2", 0),
    ],
)
def test_the_partition_and_the_requeues_so_far(comment: str, attempt: str, requeues: int) -> None:
    told = {
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_COMMENT": comment,
        "SLURM_JOB_RESTART_COUNT": attempt,
    }
    job = parse_job_context({**LEAST, **told}, "n1")
    assert (job.partition, job.requeues) == ("gpu", requeues)
    assert (parse_job_context(LEAST, "n1").partition, parse_job_context(LEAST, "n1").requeues) == (
        "",
        0,
    )

"""MIG instances for people: one for a run, several for a reservation, never beside a whole GPU."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hosts.shared_host import NODE, SharedHost
from polling import poll_until

pytestmark = pytest.mark.slow

SHOW = ("--", "sh", "-c", 'echo "$CUDA_VISIBLE_DEVICES"')


@pytest.fixture
def mixed(make_host: Callable[..., SharedHost]) -> SharedHost:
    """GPU 0 is whole; GPU 1 has two instances 1g.10gb and one 3g.40gb."""
    host = make_host(2)
    gpu = host.node.gpu(1)
    gpu.add_mig(0)
    gpu.add_mig(1, profile="3g.40gb", memory_total_mb=40000)
    gpu.add_mig(2)
    return host


@pytest.fixture
def divided(make_host: Callable[..., SharedHost]) -> SharedHost:
    """The host's only GPU has instances alone."""
    host = make_host(1)
    host.node.gpu(0).add_mig(0)
    host.node.gpu(0).add_mig(1)
    return host


def mig(host: SharedHost, index: int) -> str:
    return host.node.gpu(1).mig(index).uuid


def refusal(host: SharedHost, *arguments: str, status: int = 75) -> str:
    done = host.call(*arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert host.holders() == {}
    return done.stderr


def test_a_count_is_of_whole_gpus(mixed: SharedHost) -> None:
    assert mixed.call("run", "--gpus", "1", *SHOW).stdout.strip() == mixed.node.gpu(0).uuid
    text = refusal(mixed, "run", "--gpus", "2", *SHOW)
    assert f"{NODE} has 1 whole GPU and the MIG instances 1g.10gb (2), 3g.40gb (1)" in text
    assert "2 were asked for" in text
    assert "--profile" in text


def test_a_run_gets_one_instance_of_the_profile(mixed: SharedHost) -> None:
    mixed.configure(run={"export": "index"})
    for profile in ("3g.40gb", "3G.40GB"):
        done = mixed.call("run", "--profile", profile, *SHOW)
        assert done.stdout.strip() == mig(mixed, 1)
    assert mixed.call("run", "--gpu-ids", "1:2", *SHOW).stdout.strip() == mig(mixed, 2)


def test_instances_that_are_used_are_no_choice(mixed: SharedHost) -> None:
    mixed.node.gpu(1).mig(0).override_used(5000)
    assert mixed.call("run", "--profile", "1g.10gb", *SHOW).stdout.strip() == mig(mixed, 2)
    mixed.node.gpu(1).mig(2).override_used(5000)
    text = refusal(mixed, "run", "--nonblock", "--profile", "1g.10gb", *SHOW)
    assert "Requested: 1, Available: 0 (2 GPUs in use without reservation" in text
    assert mixed.call("run", "--gpus", "1", "--nonblock", *SHOW).returncode == 0


def test_a_node_of_instances_alone_names_its_profiles(divided: SharedHost) -> None:
    text = refusal(divided, "run", *SHOW)
    assert f"{NODE} has no whole GPU and the MIG instances 1g.10gb (2); 1 was asked for" in text
    assert "--profile" in text
    assert "--gpu-ids" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--profile", "7g.80gb"],
            "no MIG instance of the profile 7g.80gb; it has 1g.10gb (2), 3g",
        ),
        (["--profile", "1g.10gb+me"], "no MIG instance of the profile 1g.10gb+me; it has"),
    ],
)
def test_a_profile_that_is_not_there_is_refused_with_those_that_are(
    mixed: SharedHost, arguments: list[str], text: str
) -> None:
    assert text in refusal(mixed, "run", *arguments, *SHOW)


def test_a_profile_on_a_node_without_instances(host: SharedHost) -> None:
    text = refusal(host, "run", "--profile", "1g.10gb", *SHOW)
    assert "no MIG instance of the profile 1g.10gb; it has none at all" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--profile", "1g.10gb", "--gpus", "2"], "a run gets one MIG instance"),
        (["--gpu-ids", "1:0,1:2"], "a run gets one MIG instance"),
        (["--gpu-ids", "0,1:2"], "GPU 0 and the MIG instance 1:2 are not granted together"),
        (["--gpu-ids", "1:0", "--profile", "1g.10gb"], "--profile and --gpu-ids contradict"),
        (["--profile", "gpu:8"], "is no profile; accepted: a name as 1g.10gb"),
    ],
)
def test_what_cuda_would_not_show_is_refused(
    mixed: SharedHost, arguments: list[str], text: str
) -> None:
    assert text in refusal(mixed, "run", *arguments, *SHOW, status=2)


def test_a_reservation_may_have_several_instances_but_not_beside_a_whole_gpu(
    mixed: SharedHost,
) -> None:
    text = refusal(mixed, "reserve", "--gpu-ids", "0,1:0", status=2)
    assert "are not granted together" in text
    assert "1g.10gb (2)" in refusal(mixed, "reserve", "--profile", "2g.20gb")
    few = refusal(mixed, "reserve", "--profile", "1g.10gb", "--gpus", "3")
    assert f"{NODE} has 2 MIG instances of the profile 1g.10gb; 3 were asked for" in few
    done = mixed.call("reserve", "--profile", "1g.10gb", "--gpus", "2")
    assert f"export CUDA_VISIBLE_DEVICES={mig(mixed, 0)},{mig(mixed, 2)}" in done.stdout
    assert "one MIG instance: name one of them to each" in done.stdout
    assert set(mixed.holders()) == {mig(mixed, 0), mig(mixed, 2)}
    named = mixed.call("reserve", "--gpu-ids", "1:1", "--json")
    (gpu,) = json.loads(named.stdout)["gpus"]
    assert (gpu["mig_index"], gpu["mig_profile"], gpu["uuid"]) == (1, "3g.40gb", mig(mixed, 1))


def test_a_wait_for_an_instance_says_so_and_ends_with_one(mixed: SharedHost) -> None:
    mixed.call("reserve", "--profile", "1g.10gb", "--gpus", "2").check_returncode()
    waiting = mixed.start("run", "--profile", "1g.10gb", *SHOW)
    poll_until(lambda: bool(mixed.view().queue), "the run to wait")
    shown = mixed.call("queue").stdout
    assert "1 MIG instance 1g.10gb" in shown
    (node,) = json.loads(mixed.call("queue", "--json").stdout)["nodes"]
    assert [(one["count"], one["mig_profile"]) for one in node["queue"]] == [(1, "1g.10gb")]
    mixed.call("release", "--gpu-ids", "1:2").check_returncode()
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out.strip()) == (0, mig(mixed, 2)), err
    assert "1 MIG instance 1g.10gb" in err


def test_a_wait_for_a_whole_gpu_is_not_ended_by_an_instance(mixed: SharedHost) -> None:
    mixed.call("reserve", "--gpu-ids", "0").check_returncode()
    done = mixed.call("run", "--gpus", "1", "--wait", "3s", *SHOW)
    assert done.returncode == 75
    assert "held by root" in done.stderr


def test_the_status_names_the_profile(mixed: SharedHost) -> None:
    (node,) = json.loads(mixed.call("status", "--json").stdout)["nodes"]
    assert [one["mig_profile"] for one in node["gpus"]] == [None, "1g.10gb", "3g.40gb", "1g.10gb"]
    shown = mixed.call("status").stdout
    assert "3g.40gb" in shown


def test_inside_a_job_a_run_gets_one_of_its_instances(mixed: SharedHost) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE, "CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}
    done = mixed.call("run", *SHOW, environ=job)
    assert (done.returncode, done.stdout) == (0, "MIG-a\n"), done.stderr
    for environ in (job, {**job, "CUDA_VISIBLE_DEVICES": "MIG-a"}):
        refused = mixed.call("run", "--gpus", "2", *SHOW, environ=environ)
        assert refused.returncode == 2
        assert "inside Slurm job 12 too a run gets one MIG instance" in refused.stderr
    named = mixed.call("run", "--profile", "1g.10gb", *SHOW, environ=job)
    assert named.returncode == 2
    assert "the GPUs are the job's: use --gpus" in named.stderr


def test_a_profile_goes_through_slurm_as_a_type(mixed: SharedHost) -> None:
    mixed.configure(run={"via_slurm": "yes"})
    for program in ("srun", "salloc"):
        (mixed.root / program).write_text('#!/bin/sh\necho "$0 $*"\n')
        (mixed.root / program).chmod(0o755)
    path = {"PATH": f"{mixed.root}:/usr/bin:/bin"}
    run = mixed.call("run", "--profile", "1g.10gb", "--", "true", environ=path)
    assert "--gres=gpu:1g.10gb:1 -- true" in run.stdout, run.stderr
    reserve = mixed.call("reserve", "--profile", "1g.10gb", "--gpus", "2", environ=path)
    assert "--gres=gpu:1g.10gb:2" in reserve.stdout, reserve.stderr

"""The short options of `run` and `reserve`, and what is said of GPUs that were named."""

from __future__ import annotations

import json

import pytest
from hosts.shared_host import SharedHost

pytestmark = pytest.mark.slow

SHOW = ("--", "sh", "-c", "echo $CANHAZGPU_GPUS")


def test_they_mean_what_the_long_ones_mean(host: SharedHost) -> None:
    done = host.call("reserve", "-g2", "-d", "2h", "-n", "sweep 7", "-w", "1s", "-j")

    told = json.loads(done.stdout)
    assert (len(told["gpus"]), told["duration_s"]) == (2, 7200.0)
    assert {one.claim.note for one in host.view().reservations.values()} == {"sweep 7"}
    host.call("extend", "-d", "1h", "-G", "1").check_returncode()
    host.call("release", "-G", "0").check_returncode()
    host.call("admin", "release", "-G", "1", "--reason", "over").check_returncode()
    assert not host.holders()


def test_a_run_ends_after_its_time(host: SharedHost) -> None:
    done = host.call("run", "-t", "1s", "-g", "1", "--", "sleep", "600")

    assert "the run's time of 1 s is over" in done.stderr
    assert done.returncode != 0


def test_options_of_the_command_are_its_own(host: SharedHost) -> None:
    done = host.call("run", "-g", "1", "echo", "-g", "2", "-G", "7")

    assert done.stdout == "-g 2 -G 7\n"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("0", "took GPU 0 of host1\n"),
        ("1", "took GPU 1 of host1 (-G names GPUs; for any 1 of them: -g 1)\n"),
        ("0,1", "took GPU 0, 1 of host1\n"),
    ],
)
def test_named_gpus_are_told(host: SharedHost, named: str, said: str) -> None:
    ran = host.call("run", "-G", named, *SHOW)
    uuids = ran.stdout.strip().split(",")
    short = host.call("reserve", "-G", named, "-s")

    assert [host.uuids()[int(one)] for one in named.split(",")] == uuids
    assert ran.stderr == short.stderr == f"canhazgpu: {said}"
    assert short.stdout.strip() == ran.stdout.strip()


def test_counted_gpus_are_not(host: SharedHost) -> None:
    assert host.call("run", "-g", "2", *SHOW).stderr == ""
    assert host.call("reserve", "-g", "2", "-s").stderr == ""


def test_gpus_that_are_not_to_be_had_are_not_told(host: SharedHost) -> None:
    host.call("reserve", "-G", "1").check_returncode()

    refused = host.call("run", "-G", "1", "--nonblock", "--", "true")

    assert refused.returncode == 75
    assert "took" not in refused.stderr

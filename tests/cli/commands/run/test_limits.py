"""What a site allows one user of a node, where no agent stands between people and the store."""

from __future__ import annotations

import subprocess

import pytest
from hosts.shared_host import NODE, SharedHost
from polling import poll_until

pytestmark = pytest.mark.slow

TEMPFAIL = 75
WRONG = 2


@pytest.fixture
def host(host: SharedHost) -> SharedHost:
    host.configure(run={"max_gpus": 1, "max_memory_threshold_mb": 2000})
    return host


def refused(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return done.returncode, done.stderr


def test_a_user_gets_no_more_gpus_than_the_site_allows(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    ann, bob = people[:2]
    assert host.call("reserve", "--gpus", "1", user=ann).returncode == 0

    for command in (("reserve", "--gpus", "1"), ("run", "--gpus", "1", "--", "true")):
        status, told = refused(host.call(*command, user=ann))
        assert status == TEMPFAIL
        assert "a user may have 1 GPU of a node at most (run.max_gpus); you hold 1" in told
    # It is a limit for each user.
    assert host.call("run", "--gpus", "1", "--", "true", user=bob).returncode == 0
    assert host.call("release", user=ann).returncode == 0
    assert host.call("run", "--gpus", "1", "--", "true", user=ann).returncode == 0


def test_what_a_user_waits_for_counts(host: SharedHost, people: tuple[str, ...]) -> None:
    assert host.call("reserve", "--gpus", "2").returncode == 0
    waiting = host.start("run", "--gpus", "1", "--wait", "forever", "--", "true", user=people[0])
    poll_until(lambda: host.view().queue)

    status, told = refused(host.call("reserve", "--gpus", "1", user=people[0]))

    assert status == TEMPFAIL
    assert "you hold 0, wait for 1, and ask for 1 more" in told
    assert [one.user for one in host.view().queue] == [people[0]]
    # The one who waits gets what was asked for.
    assert host.call("release").returncode == 0
    assert waiting.wait(60) == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--gpus", "2"), "run.max_gpus"),
        (("--gpu-ids", "0,1"), "run.max_gpus"),
        (("--memory-threshold", "2001"), "run.max_memory_threshold_mb"),
    ],
)
def test_what_the_site_never_allows_is_an_error(
    host: SharedHost, people: tuple[str, ...], options: tuple[str, ...], key: str
) -> None:
    for command in (("reserve", *options), ("run", *options, "--", "true")):
        status, told = refused(host.call(*command, user=people[0]))
        assert (status, f"({key})" in told) == (WRONG, True), told
    assert not host.view().queue and not host.holders()


def test_what_is_allowed_is_granted(host: SharedHost, people: tuple[str, ...]) -> None:
    given = ("--gpus", "1", "--memory-threshold", "2000")
    assert host.call("run", *given, "--", "true", user=people[0]).returncode == 0


def test_root_has_no_limits(host: SharedHost) -> None:
    assert host.call("reserve", "--gpus", "2", "--memory-threshold", "9000").returncode == 0
    assert len(host.view().reservations) == 2
    assert host.view().node == NODE

"""The judge of what comes of garbage can find something."""

from __future__ import annotations

import subprocess
from typing import NoReturn

import pytest
from garbage.judgement import NEVER_SAID, Judged

from canhazgpu.cli.app import App


def ended(status: int, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], status, "", said)


def test_a_hook_that_ends_with_0_in_silence_is_well() -> None:
    judged = Judged("x")
    judged.hook("prolog", ended(0), "canhazgpu: job 12: requeued")
    judged.assert_none_broke()
    assert str(judged) == "x: 0 tried, 1 runs, 0 broke"


@pytest.mark.parametrize("status", [1, 2, -9])
def test_a_hook_that_fails_is_found(status: int) -> None:
    judged = Judged("x")
    judged.hook("prolog", ended(status), "")
    with pytest.raises(AssertionError, match=f"status {status}"):
        judged.assert_none_broke()


@pytest.mark.parametrize("said", NEVER_SAID)
def test_what_is_never_to_be_said_is_found(said: str) -> None:
    judged = Judged("x")
    judged.hook("prolog", ended(0, f"a {said} b"), "")
    judged.hook("epilog", ended(0), f"a {said} b")
    assert len(judged.broke) == 2


def test_a_command_that_raises_is_found() -> None:
    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("x")

    judged = Judged("x")
    judged.command(App(environ={}, open_service=broken), ["status"])
    assert "ZeroDivisionError" in judged.broke[0] and "test_judgement.py" in judged.broke[0]


def test_a_grant_of_what_somebody_has_is_found() -> None:
    judged = Judged("x")
    judged.grants("reserve", ["a"], ["b"])
    judged.assert_none_broke()
    judged.grants("reserve", ["a", "b"], ["b", "c"])
    assert judged.broke == ["reserve: granted ['b']"]

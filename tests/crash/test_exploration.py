"""The search for crash points can find something: a change of two files that is none as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes.crash_page import NO_CRASH, Crash, CrashPage, library, take_program
from crashes.exploration import Ended, Explored, Scenario, explore
from crashes.node_image import NodeState, remove_files
from forking_python import ForkingPython

pytestmark = pytest.mark.slow

TORN = """
for name in ("first", "second"):
    with open(f"{directory}/{{name}}", "w") as stream:
        stream.write("x")
"""
WHOLE = """
import os
with open("{directory}/.first", "w") as stream:
    stream.write("x")
os.rename("{directory}/.first", "{directory}/first")
"""


@pytest.fixture(scope="module")
def python() -> Iterator[ForkingPython]:
    with ForkingPython(Path(sys.executable), {"LD_PRELOAD": str(library())}) as made:
        yield made


def explored(python: ForkingPython, place: Path, program: str, what: str) -> Explored:
    page = CrashPage(place / "page")
    files = place / "files"
    files.mkdir()
    work = take_program(page, "work") + program.format(directory=files)

    def run(crash: Crash | None) -> Ended:
        remove_files(files)
        page.set("work", crash or NO_CRASH)
        if crash is not None:
            python.run(["-c", work], {}, 60)
        names = sorted(one.name for one in files.iterdir() if not one.name.startswith("."))
        state = NodeState(files=tuple(names))
        return Ended(crash or NO_CRASH, page.taken_steps(), page.is_hit, state, [])

    return explore(Scenario("two files", run), {what: 100})


@pytest.mark.parametrize("what", ["kills", "write errors", "disk full"])
def test_what_is_half_done_is_found(python: ForkingPython, tmp_path: Path, what: str) -> None:
    found = explored(python, tmp_path, TORN, what)
    assert [one for one in found.faults if "files=('first',)" in one]
    assert found.tried[what] >= 4


def test_what_is_done_as_a_whole_is_well(python: ForkingPython, tmp_path: Path) -> None:
    found = explored(python, tmp_path, WHOLE, "kills")
    assert found.faults == []
    assert found.tried["kills"] == found.steps >= 3

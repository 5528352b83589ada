"""The task prolog that runs a site's own as well, under every shell that may be a node's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from plugins.fast_set import first_and_variants

from canhazgpu.schedulers.slurm.site.layout import ScriptLocation
from canhazgpu.templates.slurm_files import chain_text

from .task_prolog import SHELLS, Told, shell_command

OURS = """\
echo 'export CUDA_DEVICE_ORDER=PCI_BUS_ID'
echo 'print hello * there'
echo 'export CUDA_VISIBLE_DEVICES=GPU-1,GPU-2'
"""


@dataclass(frozen=True)
class Chain:
    """The chaining script with a task prolog of ours and one of the site's beside it."""

    directory: Path
    shell: Sequence[str]

    def run_as_job(
        self, ours: str | None, site: str | None, *, ours_mode: int = 0o755, **environ: str
    ) -> Told:
        paths = {name: self.directory / f"it's {name} $(x).sh" for name in ("ours", "site")}
        for name, body in (("ours", ours), ("site", site)):
            paths[name].unlink(missing_ok=True)
            if body is not None:
                paths[name].write_text(f"#!/bin/sh\n{body}")
                paths[name].chmod(ours_mode if name == "ours" else 0o755)
        script = self.directory / "chain.sh"
        place = ScriptLocation(
            "TaskProlog", str(paths["ours"]), str(script), str(script), str(paths["site"])
        )
        script.write_text(chain_text(place))
        done = subprocess.run(
            [*self.shell, str(script)],
            env=environ,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return Told(done.stdout.splitlines(), done.returncode, done.stderr)


@pytest.fixture(params=first_and_variants(SHELLS))
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    directory = Path(tempfile.mkdtemp(prefix="task-chain-"))
    yield Chain(directory, shell_command(request.param))
    shutil.rmtree(directory)


def test_both_speak_and_ours_has_the_last_word(chain: Chain) -> None:
    told = chain.run_as_job(OURS, "echo 'export SITE=a b'\necho 'export CUDA_VISIBLE_DEVICES=7'\n")
    assert told == Told(
        [
            "export SITE=a b",
            "export CUDA_VISIBLE_DEVICES=7",
            "export CUDA_DEVICE_ORDER=PCI_BUS_ID",
            "print hello * there",
            "export CUDA_VISIBLE_DEVICES=GPU-1,GPU-2",
        ],
        0,
        "",
    )


def test_the_sites_script_sees_what_the_task_will_see(chain: Chain) -> None:
    site = 'echo "print $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER $OTHER ${#IFS}"\n'
    told = chain.run_as_job(OURS, site, CUDA_VISIBLE_DEVICES="0", OTHER="kept")
    assert told.lines[0] == "print GPU-1,GPU-2 PCI_BUS_ID kept 3"


def test_the_sites_script_sees_the_names_of_the_tasks_gpus(chain: Chain) -> None:
    site = 'echo "print ${CANHAZGPU_GPUS-unset}"\n'
    told = chain.run_as_job("echo 'export CANHAZGPU_GPUS=GPU-1,GPU-2'\n", site)
    assert told.lines[0] == "print GPU-1,GPU-2"
    told = chain.run_as_job("echo 'unset CANHAZGPU_GPUS'\n", site, CANHAZGPU_GPUS="GPU-3")
    assert told.lines[0] == "print unset"


def test_where_ours_has_nothing_to_say_the_site_sees_slurms(chain: Chain) -> None:
    told = chain.run_as_job("", 'echo "print $CUDA_VISIBLE_DEVICES"\n', CUDA_VISIBLE_DEVICES="0")
    assert told == Told(["print 0"], 0, "")


@pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -KILL $$", 137)])
def test_the_sites_failure_is_the_tasks(chain: Chain, end: str, status: int) -> None:
    told = chain.run_as_job(OURS, f"echo 'export SITE=1'\n{end}\n")
    assert told.status == status
    assert told.lines[0] == "export SITE=1"


def test_a_line_without_its_end_does_not_run_into_ours(chain: Chain) -> None:
    told = chain.run_as_job(OURS, "printf 'export SITE=1'")
    assert told.lines[:2] == ["export SITE=1", "export CUDA_DEVICE_ORDER=PCI_BUS_ID"]


def test_without_ours_a_task_without_gpus_has_the_sites_say(chain: Chain) -> None:
    assert chain.run_as_job(None, "echo 'export SITE=1'\n") == Told(["export SITE=1"], 0, "")


@pytest.mark.parametrize(
    ("ours", "why"),
    [
        (None, "cannot be read"),
        ("kill -KILL $$", "ended with status 137"),
        (f"{OURS}exit 1\n", "ended with status 1"),
    ],
)
def test_without_ours_a_task_with_gpus_sees_none_and_is_told(
    chain: Chain, ours: str | None, why: str
) -> None:
    ours_path = chain.directory / "it's ours $(x).sh"
    site = 'echo "export SITE=${CUDA_VISIBLE_DEVICES-unset}"\n'
    for environ in ({"CUDA_VISIBLE_DEVICES": "0"}, {"SLURM_GPUS_ON_NODE": "1"}):
        told = chain.run_as_job(ours, site, **environ)
        assert told.lines == [
            "export SITE=",
            "export CUDA_VISIBLE_DEVICES=",
            "unset CANHAZGPU_GPUS",
            f"print canhazgpu: this task sees no GPU: {ours_path} {why}; tell the administrator",
        ]
        assert told.status == 0


def test_ours_that_cannot_be_executed_is_run_all_the_same_and_its_user_told(chain: Chain) -> None:
    ours = chain.directory / "it's ours $(x).sh"
    told = chain.run_as_job(OURS, "", ours_mode=0o644, CUDA_VISIBLE_DEVICES="0")
    assert told.lines == [
        "export CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "print hello * there",
        "export CUDA_VISIBLE_DEVICES=GPU-1,GPU-2",
        f"print canhazgpu: {ours} cannot be executed; tell the administrator",
    ]


def test_without_the_sites_the_task_ends_as_it_would_have(chain: Chain) -> None:
    told = chain.run_as_job(OURS, None)
    assert told.status == 127
    assert "site $(x).sh" in told.errors


def test_a_silent_site_adds_no_line(chain: Chain) -> None:
    assert chain.run_as_job("", "") == Told([], 0, "")
    assert len(chain.run_as_job(OURS, "").lines) == 3


def test_a_job_that_was_sent_back_ends_its_task(chain: Chain) -> None:
    """By canhazgpu's own status, whatever the site's script says, and after all was said."""
    ours = "echo 'print canhazgpu: sent back'\nexit 75\n"
    told = chain.run_as_job(ours, "echo 'export SITE=a'\nexit 0\n")
    assert told == Told(["export SITE=a", "print canhazgpu: sent back"], 75, "")

"""A site with hook scripts of its own: canhazgpu comes, is checked, and goes, on a real Slurm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.site_cluster import ScriptsCluster, SiteCluster

from demo_cluster import ClusterSpec, new_directory

SHOW = 'echo "$SITE $SAW $CUDA_VISIBLE_DEVICES $CANHAZGPU_GPUS"'
JOB = f"{SHOW}\nsrun sh -c '{SHOW}'"
BEFORE = ["yes 0 site ", "yes 0 site "]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, id=name, marks=pytest.mark.xdist_group(f"site {name}"))
        for name, kind in (("patterns", SiteCluster), ("scripts", ScriptsCluster))
    ],
)
def cluster(
    request: pytest.FixtureRequest, venv: Path, people: tuple[str, str]
) -> Iterator[SiteCluster]:
    spec = ClusterSpec(nodes=1, gpus_per_node=2, constrain_devices=True)
    cluster = request.param(new_directory(), venv, spec, {})
    cluster.slurm.start()
    yield cluster
    cluster.stop()
    shutil.rmtree(cluster.root)


@pytest.fixture(scope="module")
def before(cluster: SiteCluster, people: tuple[str, str]) -> dict[str, tuple[int, str]]:
    """The site as it was, and what its jobs saw."""
    assert cluster.job(JOB, people[0]) == BEFORE
    return cluster.tree()


@pytest.fixture(scope="module")
def installed(cluster: SiteCluster, before: dict[str, tuple[int, str]]) -> SiteCluster:
    """canhazgpu is installed as an administrator does it: the scripts, then the lines it says."""
    said = json.loads(cluster.hooks("install", "--json").stdout)
    cluster.change_conf([(one["key"], one["value"]) for one in said["slurm_conf_lines"]])
    kept = {name: one for name, one in cluster.tree().items() if name in before}
    assert kept == before
    # As Slurm's timer will, minutes later.
    assert run_health_check(cluster).returncode == 0
    return cluster


def run_health_check(cluster: SiteCluster) -> subprocess.CompletedProcess[str]:
    """Run the installed script with what slurmd gives it."""
    return subprocess.run(
        [cluster.slurm_dir / "canhazgpu" / "health_check.sh", "--exit-code"],
        env={"SLURMD_NODENAME": "n1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(autouse=True)
def _nodes_are_up(cluster: SiteCluster) -> Iterator[None]:
    yield
    cluster.slurm.wait_nodes_idle()


@pytest.mark.release
def test_the_sites_hooks_work_on_and_the_jobs_gpu_is_ours(
    installed: SiteCluster, people: tuple[str, str]
) -> None:
    installed.log.write_text("")

    lines = installed.job(JOB, people[0])

    first = lines[0].split()
    assert first[0] == "yes"  # the site's task prolog exports
    assert first[1] == first[2]  # it saw the GPU that the job sees
    assert first[2:] == ["0", *installed.uuids_of_positions("n1")[:1]]
    assert lines[1] == lines[0]
    said = [line.split()[0] for line in installed.log.read_text().splitlines()]
    assert said == ["prolog", "epilog"]
    assert installed.held() == {}


@pytest.mark.release
def test_the_sites_task_prolog_may_still_refuse_a_task(
    installed: SiteCluster, people: tuple[str, str]
) -> None:
    lines = installed.job("echo never", people[0], "--export=ALL,SITE_FAILS=1")
    # What else is in the line differs from release to release.
    assert len(lines) == 1
    assert "TaskProlog" in lines[0] and "status=3" in lines[0]


@pytest.mark.release
def test_a_second_installation_changes_and_asks_for_nothing(installed: SiteCluster) -> None:
    said = json.loads(installed.hooks("install", "--json").stdout)
    assert {one["action"] for one in said["files"]} == {"unchanged"}
    assert said["slurm_conf_lines"] == []


@pytest.mark.release
def test_slurm_runs_the_health_check_that_was_installed(installed: SiteCluster) -> None:
    """slurmd gives it a name alone: configuration and slurm.conf are where no default looks."""
    script = installed.slurm_dir / "canhazgpu" / "health_check.sh"
    shown = installed.slurm.run(["scontrol", "show", "config"]).stdout
    assert re.search(rf"HealthCheckProgram\s*= {script}\n", shown)

    done = run_health_check(installed)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.release
def test_nothing_is_wrong_with_it(installed: SiteCluster) -> None:
    assert installed.problems() == {}
    assert installed.hooks("check", "--strict", check=False).returncode == 0


Broken = Callable[[SiteCluster], Callable[[], Any]]


def changed(cluster: SiteCluster, key: str, value: str | None) -> Callable[[], Any]:
    conf = cluster.slurm.layout.slurm_conf
    text = conf.read_text()
    cluster.edit_conf([(key, value)])
    return lambda: conf.write_text(text)


def no_flags(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "PrologFlags", None)


def short_timeout(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "PrologEpilogTimeout", "20")


def held_jobs(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "SchedulerParameters", "bf_interval=1")


def impatient_for_scripts(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "BatchStartTimeout", "10")


def no_health_check(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "HealthCheckProgram", None)


def edited_by_hand(cluster: SiteCluster) -> Callable[[], Any]:
    [path] = cluster.slurm_dir.rglob("epilog.d/canhazgpu.sh")
    text = path.read_text()
    path.write_text(text.replace("exit 0", "exit 1"))
    return lambda: path.write_text(text)


def not_read_yet(cluster: SiteCluster) -> Callable[[], Any]:
    return changed(cluster, "TaskProlog", str(cluster.slurm_dir / "site_task_prolog.sh"))


def prolog_is_gone(cluster: SiteCluster) -> Callable[[], Any]:
    [path] = cluster.slurm_dir.rglob("prolog.d/canhazgpu.sh")
    away = path.rename(cluster.root / "away")
    return lambda: away.rename(path)


def readme(cluster: SiteCluster) -> Callable[[], Any]:
    [path] = cluster.slurm_dir.rglob("epilog.d/canhazgpu.sh")
    path.with_name("README").write_text("not for Slurm")
    return path.with_name("README").unlink


def nothing_matches(cluster: SiteCluster) -> Callable[[], Any]:
    [path] = cluster.slurm_dir.rglob("prolog.d/canhazgpu.sh")
    others = list(path.parent.iterdir())
    moved = [(one, one.rename(cluster.root / f"away-{one.name}")) for one in others]
    return lambda: [away.rename(one) for one, away in moved]


def site_script_is_gone(cluster: SiteCluster) -> Callable[[], Any]:
    path = cluster.slurm_dir / "site_task_prolog.sh"
    away = path.rename(cluster.root / "away")
    return lambda: away.rename(path)


def nvml_by_the_shell_alone(cluster: SiteCluster) -> Callable[[], Any]:
    cluster.configure(validation={"nvml_library": ""})
    library = str(cluster.root / "nvml" / "libnvidia-ml.so.1")
    return lambda: cluster.configure(validation={"nvml_library": library})


def store_is_away(cluster: SiteCluster) -> Callable[[], Any]:
    cluster.configure(store={"url": "redis://127.0.0.1:1/0"})
    return lambda: cluster.configure(store={"url": "embedded"})


def choice_that_cannot_be_opened(cluster: SiteCluster) -> Callable[[], Any]:
    cluster.configure(slurm={"assignment": "canhazgpu"})
    return lambda: cluster.configure(slurm={"assignment": "auto"})


def fewer_gpus(cluster: SiteCluster) -> Callable[[], Any]:
    gres = cluster.slurm.layout.etc / "gres.conf"
    text = gres.read_text()
    gres.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    return lambda: gres.write_text(text)


def open_to_others(cluster: SiteCluster) -> Callable[[], Any]:
    cluster.config_file.chmod(0o666)
    return lambda: cluster.config_file.chmod(0o644)


def open_records(cluster: SiteCluster) -> Callable[[], Any]:
    path = cluster.root / "run" / "n1"
    path.chmod(0o777)
    return lambda: path.chmod(0o755)


def no_commands(cluster: SiteCluster) -> Callable[[], Any]:
    cluster.configure(slurm={"bin_dir": str(cluster.root)})
    return lambda: cluster.configure(slurm={"bin_dir": ""})


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("prolog-flags", no_flags),
        ("hook-timeout", short_timeout),
        ("batch-start", impatient_for_scripts),
        ("health-check", no_health_check),
        ("hooks-installed", edited_by_hand),
        ("hold-on-failure", held_jobs),
        ("running-config", not_read_yet),
        ("hooks-installed", prolog_is_gone),
        ("hook-scripts", readme),
        ("hook-patterns", nothing_matches),
        ("site-scripts", site_script_is_gone),
        ("gpus", nvml_by_the_shell_alone),
        ("store", store_is_away),
        ("assignment", choice_that_cannot_be_opened),
        ("gpu-count", fewer_gpus),
        ("trusted-paths", open_to_others),
        ("state-dir", open_records),
        ("slurm-commands", no_commands),
    ],
)
def test_a_fault_is_named_and_what_mends_it(
    installed: SiteCluster, name: str, broken: Broken
) -> None:
    repair = broken(installed)
    try:
        # The administrator's shell finds the library; the hooks do not.
        library = {"LD_LIBRARY_PATH": str(installed.root / "nvml")}
        found = installed.problems(**(library if broken is nvml_by_the_shell_alone else {}))
    finally:
        repair()
    assert name in found
    assert found[name]["fix"]
    assert installed.problems() == {}


def test_a_password_that_everybody_can_read_is_found_and_not_shown(installed: SiteCluster) -> None:
    installed.configure(store={"url": "redis://:geheim@127.0.0.1:1/0"})
    try:
        found = installed.problems()
    finally:
        installed.configure(store={"url": "embedded"})
    assert set(found) == {"config-secret", "store"}
    assert "geheim" not in json.dumps(found)


@pytest.mark.release
def test_removed_everything_is_as_before(
    installed: SiteCluster, before: dict[str, tuple[int, str]], people: tuple[str, str]
) -> None:
    """Last of the module: it takes away what the others work on."""
    there = installed.tree()
    refused = installed.hooks("uninstall", "--json", check=False)
    said = json.loads(refused.stdout)
    lines = [(one["key"], one["value"]) for one in said["slurm_conf_lines"]]
    assert (refused.returncode, said["refused"]) == (2, True)

    # Changed in the file, and not yet in force.
    installed.edit_conf(lines)
    early = installed.hooks("uninstall", check=False)
    assert early.returncode == 2
    assert "scontrol reconfigure" in early.stdout
    assert installed.tree() == there

    installed.change_conf(lines)
    assert installed.hooks("uninstall").returncode == 0
    assert installed.tree() == before
    assert installed.job(JOB, people[0]) == BEFORE

"""Installing on a site that has scripts and settings of its own, and taking it all out again."""

from __future__ import annotations

import difflib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from forking_python import own_interpreter

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli

SITE_CONF = """\
ClusterName=site
Include hooks.conf
PrologFlags=Serial
PrologEpilogTimeout=300
MessageTimeout=100
SchedulerParameters=bf_continue
GresTypes=gpu
NodeName=n[1-2] Gres=gpu:4
"""


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in args], obj=App(environ={}))


def install(root: Path, *args: str) -> Result:
    return run("hooks", "install", "--root", root, *args)


def tree(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(root)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_text() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
    }


def put(root: Path, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's image with a site's slurm.conf and scripts."""
    root = tmp_path / "image"
    put(root, "etc/slurm/slurm.conf", SITE_CONF, 0o644)
    hooks = (
        "Prolog=/etc/slurm/prolog.d/*\nEpilog=/site/epilog.sh\nTaskProlog=/site/task prolog.sh\n"
    ).replace("/site/task prolog.sh", '"/site/task prolog.sh"')
    put(root, "etc/slurm/hooks.conf", hooks, 0o644)
    put(root, "etc/slurm/prolog.d/10-site.sh")
    put(root, "site/epilog.sh")
    put(root, "site/task prolog.sh")
    return root


def set_hooks(root: Path, lines: list[dict[str, Any]]) -> None:
    """Do with slurm.conf what install or uninstall said."""
    path = root / "etc/slurm/hooks.conf"
    for line in lines:
        old = line["instead_of"]
        kept = [
            one
            for one in path.read_text().splitlines()
            if not one.startswith(f"{line['key']}=") or (old and old not in one)
        ]
        value = line["value"]
        path.write_text("\n".join([*kept, *([f'{line["key"]}="{value}"'] if value else [])]) + "\n")


def test_each_hook_fits_its_own_way(root: Path) -> None:
    site = {name: one for name, one in tree(root).items() if "canhazgpu" not in name}

    result = install(root)

    assert result.exit_code == 0, result.output
    installed = tree(root)
    assert {name: installed[name] for name in site} == site
    assert {name for name in installed if name not in site and installed[name][1]} == {
        "etc/slurm/prolog.d/canhazgpu.sh",
        "etc/slurm/canhazgpu/epilog.d/canhazgpu.sh",
        "etc/slurm/canhazgpu/epilog.d/site.sh",
        "etc/slurm/canhazgpu/task_prolog.sh",
        "etc/slurm/canhazgpu/task_prolog_chain.sh",
        "etc/slurm/canhazgpu/health_check.sh",
    }
    assert "# Runs: /site/epilog.sh\n" in installed["etc/slurm/canhazgpu/epilog.d/site.sh"][1]
    chain = installed["etc/slurm/canhazgpu/task_prolog_chain.sh"][1]
    assert "site='/site/task prolog.sh'\n" in chain
    assert str(root) not in chain


def test_only_what_slurm_conf_lacks_is_said_and_slurm_conf_is_left_alone(root: Path) -> None:
    before = (root / "etc/slurm/slurm.conf").read_text()

    result = install(root, "--json")

    said = json.loads(result.stdout)
    assert {one["key"]: (one["value"], one["instead_of"]) for one in said["slurm_conf_lines"]} == {
        "Epilog": ("/etc/slurm/canhazgpu/epilog.d/*", "/site/epilog.sh"),
        "TaskProlog": ("/etc/slurm/canhazgpu/task_prolog_chain.sh", "/site/task prolog.sh"),
        "PrologFlags": ("Serial,Alloc", "Serial"),
        "SchedulerParameters": ("bf_continue,nohold_on_prolog_fail", "bf_continue"),
        "BatchStartTimeout": ("60", None),
        "HealthCheckProgram": ("/etc/slurm/canhazgpu/health_check.sh", None),
        "HealthCheckInterval": ("60", None),
        "HealthCheckNodeState": ("ANY,CYCLE", None),
    }
    assert all(one["reason"] for one in said["slurm_conf_lines"])
    assert said["slurm_conf_file"] == str(root / "etc/slurm/slurm.conf")
    assert (root / "etc/slurm/slurm.conf").read_text() == before


def test_after_the_lines_nothing_is_left_to_say(root: Path) -> None:
    lines = json.loads(install(root, "--json").stdout)["slurm_conf_lines"]
    set_hooks(root, lines)
    conf = root / "etc/slurm/slurm.conf"
    conf.write_text(
        "\n".join(
            one
            for one in conf.read_text().splitlines()
            if not one.startswith(("PrologFlags", "SchedulerParameters"))
        )
    )
    before = tree(root)

    result = install(root)

    assert f"{conf} has every line that the hooks need." in result.stdout
    assert {line.split()[0] for line in result.stdout.splitlines()[:6]} == {"unchanged"}
    assert tree(root) == before


def test_a_dry_run_shows_every_change_of_every_file(root: Path) -> None:
    install(root)
    good = tree(root)
    changed = put(root, "etc/slurm/prolog.d/canhazgpu.sh", "#!/bin/sh\n# Installed by canhazgpu\n")
    (root / "etc/slurm/canhazgpu/task_prolog.sh").chmod(0o644)
    (root / "etc/slurm/canhazgpu/epilog.d/site.sh").unlink()
    before = tree(root)

    result = install(root, "--dry-run")
    said = json.loads(install(root, "--dry-run", "--json").stdout)

    assert tree(root) == before
    diffs = {one["target"]: one["diff"] for one in said["files"]}
    expected = "".join(
        difflib.unified_diff(
            ["#!/bin/sh\n", "# Installed by canhazgpu\n"],
            good["etc/slurm/prolog.d/canhazgpu.sh"][1].splitlines(keepends=True),
            str(changed),
            str(changed),
        )
    )
    assert diffs[str(changed)] == expected
    assert expected in result.stdout
    assert "task_prolog.sh: mode 644 -> 755\n" in result.stdout
    assert f"--- /dev/null\n+++ {root}/etc/slurm/canhazgpu/epilog.d/site.sh\n" in result.stdout
    assert diffs[f"{root}/etc/slurm/canhazgpu/task_prolog_chain.sh"] == ""


def test_scripts_that_a_new_pattern_takes_in_are_told(root: Path) -> None:
    (root / "etc/slurm/hooks.conf").write_text("TaskProlog=/x\n")
    put(root, "etc/slurm/prolog.d/README", "read me", 0o644)

    warnings = json.loads(install(root, "--json").stdout)["warnings"]

    assert "Prolog runs /etc/slurm/prolog.d/10-site.sh as well" in warnings
    assert (
        "Prolog runs /etc/slurm/prolog.d/README as well, which cannot be executed (mode 644):"
        " it drains the node"
    ) in warnings


def test_a_site_without_room_is_told_so_and_nothing_is_written(root: Path) -> None:
    (root / "etc/slurm/hooks.conf").write_text("Prolog=/etc/slurm/prolog.d/*.py\n")
    before = tree(root)

    result = install(root)

    assert result.exit_code == 2
    assert "use a pattern such as /etc/slurm/prolog.d/*" in result.stderr
    assert tree(root) == before


def test_chains_may_be_given_for_a_node_without_slurm_conf(tmp_path: Path) -> None:
    result = install(
        tmp_path, "--chain", "prolog=/site/p.sh", "--chain", "TaskProlog=/site/t.sh", "--json"
    )
    lines = json.loads(result.stdout)
    assert lines["slurm_conf_file"] is None
    assert "Prolog=/etc/slurm/canhazgpu/prolog.d/*\n" in lines["slurm_conf"]
    assert "TaskProlog=/etc/slurm/canhazgpu/task_prolog_chain.sh\n" in lines["slurm_conf"]
    assert (tmp_path / "etc/slurm/canhazgpu/prolog.d/site.sh").exists()


@pytest.mark.parametrize("given", ["Prolog", "Other=/x", "Prolog=relative", "Prolog=/a\nb", "=/x"])
def test_a_chain_is_a_key_and_an_absolute_path(root: Path, given: str) -> None:
    result = install(root, "--chain", given)
    assert result.exit_code == 2
    assert "Prolog" in result.stderr


def test_a_slurm_conf_that_is_named_has_to_be_there(root: Path) -> None:
    result = install(root, "--slurm-conf", "/etc/other.conf")
    assert result.exit_code == 2
    assert f"cannot read {root}/etc/other.conf" in result.stderr


KILLED = """\
import os, signal, sys
left = int(sys.argv.pop(1))
write = os.fsync
def fsync(descriptor):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(descriptor)
os.fsync = fsync
from canhazgpu.cli.main import main
main()
"""
"""Dies at one of the two places where each file is written: before it is in place, or after."""


def command(root: Path, *args: str) -> list[str | Path]:
    return ["hooks", "install", "--root", root, *args]


FILES = 6


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(2 * FILES))
def test_an_installation_that_was_killed_is_repaired_by_the_next(root: Path, moment: int) -> None:
    reference = root.with_name("reference")
    subprocess.run(["cp", "-a", root, reference], check=True)
    install(reference)
    whole = tree(reference)

    program = ["-c", KILLED, str(moment), *map(str, command(root))]
    done = own_interpreter().run(program, {"PATH": os.defpath}, timeout_s=60)

    assert done.returncode == -signal.SIGKILL
    # What slurmd would run is whole or not there.
    found = {name: one for name, one in tree(root).items() if "/." not in name}
    assert found.items() <= whole.items()
    assert install(root).exit_code == 0
    assert tree(root) == whole


@pytest.mark.slow
def test_two_installations_at_once_leave_what_one_leaves(root: Path) -> None:
    program = [sys.executable, "-c", "from canhazgpu.cli.main import main; main()"]
    # Root's own settings would be no hook's, and are refused.
    environ = {"PATH": os.environ["PATH"]}
    running = [
        subprocess.Popen(
            [*program, *map(str, command(root))], stdout=subprocess.DEVNULL, env=environ
        )
        for _ in range(4)
    ]
    assert [one.wait(60) for one in running] == [0] * 4
    assert install(root).stdout.count("unchanged") == FILES
    assert not [name for name in tree(root) if name.endswith(".new")]


def uninstall(root: Path, *args: str) -> Result:
    return run("hooks", "uninstall", "--root", root, *args)


def test_what_was_installed_is_removed_and_nothing_else(root: Path) -> None:
    before = tree(root)
    set_hooks(root, json.loads(install(root, "--json").stdout)["slurm_conf_lines"])

    refused = json.loads(uninstall(root, "--json").stdout)
    set_hooks(root, refused["slurm_conf_lines"])
    result = uninstall(root)

    assert result.exit_code == 0, result.output
    after = tree(root)
    conf = "etc/slurm/hooks.conf"
    assert {name: one for name, one in after.items() if name != conf} == {
        name: one for name, one in before.items() if name != conf
    }
    assert {line.replace('"', "") for line in after[conf][1].splitlines()} >= {
        "Epilog=/site/epilog.sh",
        "TaskProlog=/site/task prolog.sh",
    }
    assert "redis-cli" in result.stdout and "ledger" in result.stdout


def test_while_slurm_conf_names_the_scripts_they_stay(root: Path) -> None:
    set_hooks(root, json.loads(install(root, "--json").stdout)["slurm_conf_lines"])
    before = tree(root)

    result = uninstall(root)

    assert result.exit_code == 2
    assert tree(root) == before
    chain = "/etc/slurm/canhazgpu/task_prolog_chain.sh"
    assert f"  TaskProlog={chain}  ->  TaskProlog=/site/task prolog.sh" in result.stdout
    assert ("  Epilog=/etc/slurm/canhazgpu/epilog.d/*  ->  Epilog=/site/epilog.sh") in result.stdout
    # The site's own script stays in its directory, so this pattern is as good as before.
    assert "Prolog=/etc/slurm/prolog.d/*" not in result.stdout
    assert result.stderr == "nothing was removed: Slurm still runs what would be gone\n"


def test_a_pattern_that_would_match_nothing_is_to_be_taken_out(root: Path) -> None:
    (root / "etc/slurm/hooks.conf").write_text("Prolog=/etc/slurm/prolog.d/*\n")
    install(root)
    (root / "etc/slurm/prolog.d/10-site.sh").unlink()

    result = uninstall(root)

    assert result.exit_code == 2
    assert "  Prolog=/etc/slurm/prolog.d/*  ->  take it out" in result.stdout


def test_a_dry_run_of_the_removal_shows_it_and_removes_nothing(root: Path) -> None:
    install(root)
    before = tree(root)

    result = uninstall(root, "--dry-run")

    assert result.exit_code == 0
    assert tree(root) == before
    path = root / "etc/slurm/canhazgpu/epilog.d/site.sh"
    assert f"to be removed {path}\n" in result.stdout
    assert f"--- {path}\n+++ /dev/null\n" in result.stdout
    assert "-exec /site/epilog.sh" in result.stdout


def test_what_others_have_put_in_our_place_stays_and_is_told(root: Path) -> None:
    foreign = put(root, "etc/slurm/prolog.d/canhazgpu.sh", "#!/bin/sh\necho theirs\n")
    put(root, "etc/slurm/epilog.d/target", "#!/bin/sh\n# Installed by canhazgpu\n")
    link = root / "etc/slurm/epilog.d/canhazgpu.sh"
    link.symlink_to(root / "etc/slurm/epilog.d/target")

    result = uninstall(root)

    assert result.exit_code == 0
    assert "nothing of canhazgpu's is installed" in result.stdout
    for path in (foreign, link):
        assert f"left {path}, which canhazgpu did not install" in result.stdout
        assert path.exists()


def test_a_removal_may_be_repeated_and_finishes_one_that_was_killed(root: Path) -> None:
    before = tree(root)
    install(root)
    (root / "etc/slurm/canhazgpu/task_prolog.sh").unlink()  # as far as it had come
    draft = root / "etc/slurm/prolog.d/.canhazgpu.sh.999999999.new"
    draft.write_text("half a script")

    assert uninstall(root).exit_code == 0
    assert tree(root) == before
    assert uninstall(root).exit_code == 0


def test_what_cannot_be_read_can_be_removed(root: Path) -> None:
    install(root)
    broken = put(root, "broken.toml", "no toml", 0o644)

    result = run("--config", broken, "hooks", "uninstall", "--root", root)

    assert result.exit_code == 0, result.output


SCRIPT = "/etc/slurm/canhazgpu/health_check.sh"
TIMER = "HealthCheckInterval=60\n"


def with_health_check(root: Path, program: str) -> Path:
    return put(
        root, "etc/slurm/slurm.conf", f"{SITE_CONF}HealthCheckProgram={program}\n{TIMER}", 0o644
    )


def test_a_sites_own_health_check_stays_and_is_told_what_to_call(root: Path) -> None:
    with_health_check(root, "/usr/sbin/nhc")

    result = install(root)

    assert result.exit_code == 0
    assert "VerdictCommand" not in result.stdout
    assert f"HealthCheckProgram=/usr/sbin/nhc is the site's: call {SCRIPT} from there" in (
        result.stderr
    )


def test_a_sites_own_health_check_that_calls_ours_needs_no_word(root: Path) -> None:
    with_health_check(root, "/usr/sbin/nhc")
    put(root, "usr/sbin/nhc", f"#!/bin/sh\n{SCRIPT}\n")

    result = install(root)

    assert "VerdictCommand" not in result.stdout + result.stderr


def test_the_health_check_of_one_environment_is_to_be_the_one_that_stays(root: Path) -> None:
    with_health_check(root, "/opt/canhazgpu-0.1/bin/canhazgpu-healthcheck")

    said = json.loads(install(root, "--json").stdout)

    [line] = [one for one in said["slurm_conf_lines"] if one["key"] == "HealthCheckProgram"]
    assert line["value"] == SCRIPT
    assert line["instead_of"] == "/opt/canhazgpu-0.1/bin/canhazgpu-healthcheck"


def test_our_own_health_check_needs_no_word_and_is_removed_last(root: Path) -> None:
    conf = with_health_check(root, SCRIPT)

    assert "VerdictCommand" not in install(root).stdout
    refused = uninstall(root)
    conf.write_text(SITE_CONF)
    set_hooks(root, json.loads(uninstall(root, "--json").stdout)["slurm_conf_lines"])
    done = uninstall(root)

    assert refused.exit_code == 2
    assert f"  HealthCheckProgram={SCRIPT}  ->  take it out\n" in refused.stdout
    assert done.exit_code == 0
    assert not (root / SCRIPT[1:]).exists()


def test_the_health_check_of_an_environment_is_to_be_taken_out_too(root: Path) -> None:
    program = "/opt/canhazgpu/bin/canhazgpu-healthcheck"
    with_health_check(root, program)
    install(root)

    result = uninstall(root)

    assert result.exit_code == 2
    assert f"  HealthCheckProgram={program}  ->  take it out\n" in result.stdout


def test_a_health_check_that_is_no_file_keeps_nobody_waiting(root: Path) -> None:
    with_health_check(root, "/usr/sbin/nhc")
    (root / "usr/sbin").mkdir(parents=True)
    os.mkfifo(root / "usr/sbin/nhc")

    assert "call " in install(root).stderr
    assert uninstall(root).exit_code == 0


def test_nothing_is_removed_while_the_sites_own_health_check_calls_ours(root: Path) -> None:
    """What it calls in vain it may take for a fault of the node, and drain it."""
    nhc = put(root, "usr/sbin/nhc", f"#!/bin/sh\n{SCRIPT}\n")
    with_health_check(root, "/usr/sbin/nhc")
    install(root)
    before = tree(root)

    result = uninstall(root)
    said = json.loads(uninstall(root, "--json").stdout)
    nhc.write_text(f"#!/bin/sh\n  # {SCRIPT}\n")
    done = uninstall(root)

    assert result.exit_code == 2
    assert "take the call of canhazgpu's health check out of /usr/sbin/nhc" in result.stdout
    assert (said["refused"], said["health_check_called_by"]) == (True, "/usr/sbin/nhc")
    assert done.exit_code == 0
    assert tree(root) != before


def test_hooks_that_run_at_once_are_warned_of_before(root: Path) -> None:
    first = install(root, "--dry-run").stderr
    install(root)
    again = install(root, "--dry-run").stderr

    assert "warning: slurm.conf names the directory of Prolog already: the node's next job" in first
    assert 'have slurm.assignment = "slurm" until then' in first
    assert "already" not in again


def test_where_slurm_picks_the_gpus_the_task_prolog_may_come_later(root: Path) -> None:
    put(root, "etc/slurm/slurm.conf", SITE_CONF + "TaskPlugin=task/cgroup\n", 0o644)
    put(root, "etc/slurm/cgroup.conf", "ConstrainDevices=yes\n", 0o644)

    constrained = install(root, "--dry-run").stderr
    (root / "etc/slurm/cgroup.conf").unlink()
    told = run("--set", "slurm.assignment=slurm", "hooks", "install", "--root", root).stderr

    for warnings in (constrained, told):
        assert "the node's next job runs canhazgpu" in warnings
        assert "until TaskProlog is in force" not in warnings


def test_hooks_that_slurm_conf_does_not_name_yet_run_not_at_once(root: Path) -> None:
    (root / "etc/slurm/hooks.conf").write_text("Prolog=/site/p.sh\n")
    assert "already" not in install(root, "--dry-run").stderr


def test_swap_is_refused_where_jobs_could_not_open_what_they_are_given(root: Path) -> None:
    put(root, "etc/slurm/slurm.conf", SITE_CONF + "TaskPlugin=task/cgroup\n", 0o644)
    put(root, "etc/slurm/cgroup.conf", "ConstrainDevices=yes\n", 0o644)
    before = tree(root)

    result = run("--set", "slurm.on_conflict=swap,requeue", "hooks", "install", "--root", root)

    assert result.exit_code == 2
    assert "swap cannot work where cgroup.conf has ConstrainDevices=yes" in result.stderr
    assert tree(root) == before

"""`canhazgpu hooks check`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hosts.running_agent import RunningAgent
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver
from slurm_configurations import make_device_files

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.schedulers.slurm.site.checks.registry import CHECKS
from canhazgpu.schedulers.slurm.site.checksum import with_checksum
from fake_nvml import FakeState

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nvml")
    FakeState(directory / "state").add_node("n1", gpus=2)
    return install_driver(directory)


@pytest.fixture
def site(tmp_path: Path, nvml: Path) -> Iterator[Path]:
    """A node that is in order but for its store, which nobody has started."""
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    # The controller does not answer.
    down = "case $1 in --version) echo slurm 22.05.8 ;; *) exit 1 ;; esac"
    for name, answer in (("scontrol", down), ("squeue", ""), ("scancel", "")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
    make_device_files(tmp_path / "dev")
    (slurm / "gres.conf").write_text(f"Name=gpu File={tmp_path}/dev/nvidia[0-1]\n")
    (tmp_path / "config.toml").write_text(
        f'[store]\nurl = "redis://127.0.0.1:1/0"\n[slurm]\nbin_dir = "{tmp_path}/bin"\n'
        f'[validation]\nnvml_library = "{nvml}"\n[node]\nstate_dir = "{tmp_path}/state"\n'
        f'marker_dir = "{tmp_path}/lib"\n'
    )
    conf = slurm / "slurm.conf"
    conf.write_text(
        "ClusterName=c\nSlurmctldHost=localhost\nNodeName=n1 CPUs=1 Gres=gpu:2\n"
        "TaskPlugin=task/cgroup\n"
    )
    lines = json.loads(hooks(tmp_path, "install", "--json").stdout)["slurm_conf"]
    conf.write_text(conf.read_text() + lines)
    yield tmp_path


def hooks(site: Path, *args: str, **environ: str) -> Result:
    app = App(environ={"SLURMD_NODENAME": "n1", **environ})
    command = [*("--config", f"{site}/config.toml", "hooks"), args[0]]
    return CliRunner().invoke(cli, [*command, "--slurm-dir", f"{site}/slurm", *args[1:]], obj=app)


def problems(result: Result) -> dict[str, str]:
    found = json.loads(result.stdout)["findings"]
    # Under a test's directory, which is pytest's own and closed to others.
    here = {"trusted-paths", "state-dir", "task-prolog", "slurm-version", "controller"}
    if not shutil.which("slurmd", path="/usr/sbin"):
        here.add("gres-files")  # no slurmd to ask
    return {
        one["id"]: one["severity"]
        for one in found
        if one["severity"] != "ok" and one["id"] not in here
    }


def test_every_check_is_shown_with_its_fields(site: Path) -> None:
    result = hooks(site, "check", "--json")

    shown = json.loads(result.stdout)
    assert shown["result"] == "error"
    # The store is away, and the controller does not answer.
    unseen = {
        "clock",
        "published",
        "running-config",
        "store-time",
        "store-keeps",
        "store-clients",
        "store-connections",
    }
    assert {one["id"] for one in shown["findings"]} == {check.id for check in CHECKS} - unseen
    assert set(shown["not_checked"]) == unseen
    assert all(
        set(one) == {"id", "severity", "found", "wanted", "fix"} for one in shown["findings"]
    )
    assert all(one["fix"] for one in shown["findings"] if one["severity"] != "ok")


@pytest.mark.skipif(os.geteuid() != 0, reason="the checks are root's")
def test_a_store_that_is_away_is_an_error_and_says_how_it_ends(site: Path) -> None:
    result = hooks(site, "check", "--json")
    assert problems(result) == {"store": "error"}
    assert result.exit_code == 2


def test_a_finding_is_a_line_and_below_it_what_mends_it(site: Path) -> None:
    conf = site / "slurm/slurm.conf"
    conf.write_text(conf.read_text().replace("PrologFlags=Alloc", "PrologFlags=Serial"))

    lines = hooks(site, "check").stdout.splitlines()

    [number] = [place for place, line in enumerate(lines) if " prolog-flags " in line]
    assert re.fullmatch(
        r"error   prolog-flags +PrologFlags=Serial; should be: Serial,Alloc", lines[number]
    )
    assert lines[number + 1].strip() == "PrologFlags=Serial,Alloc"
    assert re.fullmatch(r"\d+ errors, \d+ warnings, \d+ checks passed", lines[-1])
    [left_out] = [line for line in lines if line.startswith("not checked, ")]
    assert left_out.endswith(
        ": running-config, store-time, store-keeps, store-clients, store-connections, clock,"
        " published"
    )
    assert "\x1b" not in "".join(lines)


def test_what_a_file_says_does_not_reach_the_terminal_as_orders(site: Path) -> None:
    conf = site / "slurm/slurm.conf"
    conf.write_text(conf.read_text().replace("PrologFlags=Alloc", "PrologFlags=\x1b[2Jx"))

    result = hooks(site, "check")

    assert "\x1b" not in result.stdout
    assert "PrologFlags=x" in result.stdout


def test_a_configuration_that_cannot_be_read_is_a_finding(site: Path) -> None:
    (site / "config.toml").write_text("[store]\nurll = 'x'\n")

    result = hooks(site, "check", "--json")

    shown = {one["id"]: one for one in json.loads(result.stdout)["findings"]}
    assert "did you mean store.url?" in shown["config"]["found"]
    assert "store" not in shown and "gpus" not in shown
    assert result.exit_code == 2


READER = (
    "default on nopass ~canhazgpu:* resetchannels -@all +@read +@connection +@transaction +time"
)


def stored(site: Path, url: str) -> dict[str, dict[str, str]]:
    """Return what the check finds with this store, by id."""
    path = site / "config.toml"
    path.write_text(re.sub(r'(?m)^url = ".*"', f'url = "{url}"', path.read_text()))
    return {one["id"]: one for one in json.loads(hooks(site, "check", "--json").stdout)["findings"]}


def test_a_store_that_hooks_may_only_read_is_an_error(site: Path) -> None:
    with PrivateRedis(settings={"user": READER}) as server:
        found = stored(site, server.url)
    assert found["store"]["severity"] == "error"
    assert "who lacks the right +" in found["store"]["found"]


def test_a_store_that_has_the_node_for_another_cluster_is_an_error(site: Path) -> None:
    other = {"cluster": "other", "machine": "x", "host": "h9", "records": "yes"}
    with PrivateRedis() as server, server.client() as client:
        client.hset("canhazgpu:{n1}:scan", "identity", json.dumps(other))
        found = stored(site, server.url)
    assert found["store"]["severity"] == "error"
    assert "n1 as a node of cluster 'other', on the host 'h9'" in found["store"]["found"]
    assert "cluster 'c'" in found["store"]["found"]


def test_a_store_that_hooks_may_write_is_left_as_it_is(site: Path) -> None:
    with PrivateRedis() as server, server.client() as client:
        client.hset("canhazgpu:{n1}:recorded", "token", "1")
        client.hset("canhazgpu:{n1}:scan", "at", "1000")
        before = {key: client.dump(key) for key in client.keys("*")}
        found = stored(site, server.url)
        assert {key: client.dump(key) for key in client.keys("*")} == before
    assert found["store"]["severity"] == "ok"
    assert found["clock"]["severity"] == "ok"
    assert found["published"]["severity"] == "warning"  # half a century ago


@pytest.mark.parametrize("how", ["full", "replica", "evicts", "greedy", "no rights for a script"])
def test_a_store_that_takes_no_changes_or_loses_some_is_not_ok(site: Path, how: str) -> None:
    settings = {"user": READER + " +eval"} if how.startswith("no rights") else {}
    with PrivateRedis(settings=settings) as server, server.client() as client:
        if how == "full":
            client.config_set("maxmemory", "1")
        elif how == "replica":
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        elif how == "evicts":
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        elif how == "greedy":
            client.config_set("maxmemory-clients", "5%")  # of no limit
        found = stored(site, server.url)
    if how == "greedy":
        assert (found["store"]["severity"], found["store-clients"]["severity"]) == ("ok", "warning")
        assert "config set maxmemory-clients 256mb" in found["store-clients"]["fix"]
        return
    if how == "evicts":
        assert (found["store"]["severity"], found["store-keeps"]["severity"]) == ("ok", "warning")
        assert "config set maxmemory-policy noeviction" in found["store-keeps"]["fix"]
        return
    assert found["store"]["severity"] == "error"
    words = {"full": "out of memory", "replica": "read-only replica"}
    assert words.get(how, "lacks the right") in found["store"]["found"]
    assert found["store"]["fix"] not in ("", "see the message")


def test_a_store_that_may_not_be_asked_for_its_settings_is_left_out(site: Path) -> None:
    users = {
        "user default": "on nopass ~canhazgpu:* +@all -@dangerous",
        "user admin": "on >pw ~* +@all",
    }
    with PrivateRedis(settings=users) as server:
        found = stored(site, server.url)
        login = site / "admin.login"
        login.write_text("admin:pw\n")
        app = App(environ={"SLURMD_NODENAME": "n1"})
        options = ["--config", f"{site}/config.toml", "--set", f"store.login_file={login}"]
        command = [*options, "hooks", "check", "--json", "--slurm-dir", f"{site}/slurm"]
        asked = json.loads(CliRunner().invoke(cli, command, obj=app).stdout)["findings"]
    assert found["store"]["severity"] == "ok"
    assert not {"store-keeps", "store-clients", "store-connections"} & set(found)
    for check in ("store-keeps", "store-clients", "store-connections"):
        assert "ok" in {one["severity"] for one in asked if one["id"] == check}


def test_before_the_installation_nothing_of_canhazgpu_runs(site: Path) -> None:
    for path in (site / "slurm").rglob("canhazgpu.sh"):
        path.unlink()
    found = json.loads(hooks(site, "check", "--json").stdout)["findings"]
    wrong = {one["id"]: one for one in found if one["severity"] == "error"}
    for name in ("prolog", "epilog"):
        assert "hooks install" in wrong[name]["fix"]


def test_a_gpu_that_is_lost_is_not_ok(site: Path, nvml: Path) -> None:
    node = FakeState(nvml.parent / "state").node("n1")
    node.inject("nvmlDeviceGetMemoryInfo_v2", return_=15, gpu=1)
    node.inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=1)
    try:
        found = json.loads(hooks(site, "check", "--json").stdout)["findings"]
    finally:
        node.clear_injections()
    (gpu,) = (one for one in found if one["id"] == "gpus")
    assert gpu["severity"] == "error"
    assert "GPU 1 cannot be read" in gpu["found"]


RELEASE = re.compile(r"# canhazgpu (\S+) wrote this file")


def edited(text: str) -> str:
    return text.replace("set -f", "set -fx", 1).replace("exit 0", "exit  0", 1)


def of_an_older_release(text: str) -> str:
    body = text.rpartition("# canhazgpu ")[0]
    return with_checksum(body.replace("exit 0", "exit  0", 1), "0.0.9")


def of_another_python(text: str) -> str:
    body = text.rpartition("# canhazgpu ")[0]
    found = RELEASE.search(text)
    assert found
    return with_checksum(re.sub(r"(?m)^python=.*$", "python=/opt/old/bin/python", body), found[1])


def without_a_seal(text: str) -> str:
    return text.rpartition("# canhazgpu ")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edited, "was changed by hand since 'hooks install' wrote it"),
        (lambda text: f"{text}echo more\n", "was changed by hand since"),
        (of_an_older_release, "is of release 0.0.9, this is "),
        (of_another_python, "is this release's, for another Python or configuration: python=/opt/"),
        (without_a_seal, "is of a release before the one that seals its scripts, or was changed"),
    ],
)
def test_a_script_that_differs_is_named_and_how_it_differs(
    site: Path, change: Callable[[str], str], words: str
) -> None:
    script = site / "slurm/epilog.d/canhazgpu.sh"
    before = script.read_text()
    assert change(before) != before
    script.write_text(change(before))

    [found] = differing(site)

    assert found["found"].startswith(f"{script} {words}")
    assert "hooks install" in found["fix"] and "--dry-run" in found["fix"]


def test_a_script_with_another_mode_is_told_by_it(site: Path) -> None:
    script = site / "slurm/epilog.d/canhazgpu.sh"
    script.chmod(0o700)
    [found] = differing(site)
    assert found["found"] == f"{script} has mode 700, not 755"


def differing(site: Path) -> list[dict[str, str]]:
    found = json.loads(hooks(site, "check", "--json").stdout)["findings"]
    return [one for one in found if one["id"] == "hooks-installed" and one["severity"] != "ok"]


def test_values_that_hooks_do_not_see_are_found(site: Path) -> None:
    changed = hooks(site, "check", "--json", CANHAZGPU_STORE_TIMEOUT_S="1")
    baked = hooks(site, "check", "--json", CANHAZGPU_NODE_NAME="n1")
    assert problems(changed)["config"] == "warning"
    [fault] = [
        one
        for one in json.loads(baked.stdout)["findings"]
        if one["severity"] == "error" and one["id"] == "config"
    ]
    assert "node.name comes from environment CANHAZGPU_NODE_NAME" in fault["found"]


def test_without_slurm_conf_little_is_said(site: Path) -> None:
    (site / "slurm/slurm.conf").unlink()
    result = hooks(site, "check", "--json", "--slurm-conf", f"{site}/slurm/slurm.conf")
    assert problems(result)["slurm-conf"] == "error"
    assert "prolog-flags" not in problems(result)


def test_it_ends_with_1_for_warnings_where_that_is_asked_for(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from canhazgpu.cli.commands.hooks import check as hooks_check
    from canhazgpu.schedulers.slurm.site.checks.registry import Finding

    for severity, strict, status in (
        ("ok", True, 0),
        ("warning", False, 0),
        ("warning", True, 1),
        ("error", False, 2),
        ("error", True, 2),
    ):
        finding = Finding("x", severity, "found")  # type: ignore[arg-type]
        monkeypatch.setattr(hooks_check, "run_checks", lambda _site, one=finding: (one,))
        result = hooks(site, "check", *(["--strict"] if strict else []))
        assert result.exit_code == status, (severity, strict)


def agent_finding(site: Path) -> dict[str, str]:
    found = json.loads(hooks(site, "check", "--json").stdout)["findings"]
    return next(one for one in found if one["id"] == "agent")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent")
def test_the_agent_is_asked_what_it_is(
    site: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert agent_finding(site)["severity"] == "ok"
    assert "no agent runs" in agent_finding(site)["found"]

    with RunningAgent(tmp_path_factory.mktemp("agent")) as agent:
        config = site / "config.toml"
        text = config.read_text()
        config.write_text(re.sub(r'state_dir = "[^"]*"', f'state_dir = "{agent.state_dir}"', text))
        assert str(agent.state_dir) in config.read_text()
        assert agent_finding(site)["found"] == "the agent answers, with this release"

    # Killed: its socket is left.
    left = agent_finding(site)
    assert left["severity"] == "warning"
    assert "nobody listens" in left["found"]
    assert left["fix"] == "canhazgpu agent install"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
@pytest.mark.parametrize("key", ["node.state_dir", "node.marker_dir"])
def test_directories_that_a_user_can_exchange_are_found(site: Path, key: str) -> None:
    theirs = site / "theirs"
    (theirs / "kept" / "n1").mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    name = key.partition(".")[2]
    text = (site / "config.toml").read_text()
    old = next(line for line in text.splitlines() if line.startswith(f"{name} ="))
    (site / "config.toml").write_text(text.replace(old, f'{name} = "{theirs}/kept/%n"'))
    found = json.loads(hooks(site, "check", "--json").stdout)["findings"]
    said = [one["found"] for one in found if one["id"] == "trusted-paths"]
    assert [one for one in said if f"can change {theirs}/kept" in one and str(theirs) in one]

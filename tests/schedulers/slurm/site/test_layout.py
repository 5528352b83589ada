"""Where the scripts go on a site, and which lines of slurm.conf that takes."""

from __future__ import annotations

import pytest

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.conf.parser import parse_line
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings, parse_show_config
from canhazgpu.schedulers.slurm.site.conf_text import conf_text
from canhazgpu.schedulers.slurm.site.health_lines import health_lines
from canhazgpu.schedulers.slurm.site.layout import (
    Layout,
    chain_script_paths,
    chained_script,
    plan_layout,
)
from canhazgpu.schedulers.slurm.site.required_lines import hook_limit_s, needed_lines

DIR = "/etc/slurm"
OWN = f"{DIR}/canhazgpu"


def settings(*lines: str) -> Settings:
    return collect_settings(map(parse_line, lines))


def placed(*lines: str, given: dict[str, str] | None = None, **chained: str) -> Layout:
    """Fit a site with these lines; `chained` says by key what our chains run already."""
    paths = {
        "prolog": f"{OWN}/prolog.d/site.sh",
        "epilog": f"{OWN}/epilog.d/site.sh",
        "task_prolog": f"{OWN}/task_prolog_chain.sh",
    }
    return plan_layout(
        settings(*lines), DIR, given or {}, {paths[key]: site for key, site in chained.items()}
    )


def test_a_site_without_hooks_gets_directories_for_them() -> None:
    layout = placed()
    assert [(one.script, one.value, one.site) for one in layout.locations] == [
        (f"{DIR}/prolog.d/canhazgpu.sh", f"{DIR}/prolog.d/*", None),
        (f"{DIR}/epilog.d/canhazgpu.sh", f"{DIR}/epilog.d/*", None),
        (f"{OWN}/task_prolog.sh", f"{OWN}/task_prolog.sh", None),
    ]


@pytest.mark.parametrize(
    ("value", "script"),
    [
        ("/site/pro/*", "/site/pro/canhazgpu.sh"),
        ("/site/pro/*.sh", "/site/pro/canhazgpu.sh"),
        ("/site/pro/[0-9]*", "/site/pro/00-canhazgpu.sh"),
        ("/site/pro/[0-9][0-9]-*[!h]", "/site/pro/00-canhazgpu"),
        ("/site/pro/canhaz???", "/site/pro/canhazgpu"),
        ("/site/pro/canhazgpu.sh", "/site/pro/canhazgpu.sh"),
    ],
)
def test_a_pattern_of_the_site_takes_our_script_in(value: str, script: str) -> None:
    place = placed(f"Prolog={value}").prolog
    assert (place.script, place.value, place.chain) == (script, value, None)


@pytest.mark.parametrize("value", ["/site/pro/*.py", "/site/*/run*", "pro/*"])
def test_a_pattern_without_room_for_us_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="so canhazgpu's script has no place"):
        placed(f"Epilog={value}")


@pytest.mark.parametrize("line", ["Prolog=pro.sh", "TaskProlog=task.sh"])
def test_a_relative_script_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="is not an absolute path"):
        placed(line)


def test_a_single_script_is_run_beside_ours_in_a_directory_of_our_own() -> None:
    layout = placed("Prolog=/etc/slurm/prolog.d/site.sh", "Epilog=/site/e.sh")
    assert (layout.prolog.script, layout.prolog.value) == (
        f"{OWN}/prolog.d/canhazgpu.sh",
        f"{OWN}/prolog.d/*",
    )
    assert (layout.prolog.chain, layout.prolog.site) == (
        f"{OWN}/prolog.d/site.sh",
        "/etc/slurm/prolog.d/site.sh",
    )
    assert layout.epilog.site == "/site/e.sh"


def test_what_is_chained_stays_chained() -> None:
    first = placed("Prolog=/site/p.sh", "TaskProlog=/site/t.sh")
    lines = [f"{place.key}={place.value}" for place in first.locations]

    again = placed(*lines, prolog="/site/p.sh", task_prolog="/site/t.sh")

    assert again == first


@pytest.mark.parametrize(
    "line", [f"Prolog={OWN}/prolog.d/*", f"TaskProlog={OWN}/task_prolog_chain.sh"]
)
def test_a_chain_that_lost_its_script_is_not_guessed(line: str) -> None:
    key = line.partition("=")[0]
    with pytest.raises(ConfigError, match=f"--chain {key}="):
        placed(line)
    assert placed(line, given={key: ""})
    [place] = [one for one in placed(line, given={key: "/s"}).locations if one.key == key]
    assert place.site == "/s"


def test_what_is_given_counts_more_than_slurm_conf() -> None:
    layout = placed(
        "Prolog=/site/p.sh",
        "TaskProlog=/site/t.sh",
        given={"Prolog": "", "Epilog": "/other/e.sh", "TaskProlog": ""},
    )
    assert [place.site for place in layout.locations] == [None, "/other/e.sh", None]
    assert layout.prolog.value == f"{DIR}/prolog.d/*"


def test_our_task_prolog_in_another_directory_is_ours() -> None:
    place = placed("TaskProlog=/opt/slurm/canhazgpu/task_prolog.sh").task_prolog
    assert (place.script, place.site) == ("/opt/slurm/canhazgpu/task_prolog.sh", None)
    chain = "/opt/slurm/canhazgpu/task_prolog_chain.sh"
    assert chain in chain_script_paths(settings(f"TaskProlog={chain}"), DIR)


def test_of_several_prologs_one_that_takes_us_in_is_enough() -> None:
    place = placed("Prolog=/site/p.d/*", "Prolog=/site/last.sh").prolog
    assert (place.script, place.value) == ("/site/p.d/canhazgpu.sh", "/site/p.d/*")
    assert placed("Prolog=/site/first.sh", "Prolog=/site/last.sh").prolog.site == "/site/last.sh"


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("#!/bin/sh\n# Runs: /a b/c.sh\n", "/a b/c.sh"),
        ("#!/bin/sh\necho '# Runs: /x'\n", None),
        ("# Runs: relative\n", None),
        ("", None),
    ],
)
def test_a_chain_says_what_it_runs(text: str, site: str | None) -> None:
    assert chained_script(text) == site


def needed(
    *lines: str, limit_s: int = 60, multi_node_jobs: bool = False
) -> dict[str, tuple[str, str]]:
    site = settings(*lines)
    layout = plan_layout(site, DIR, {}, {})
    found = needed_lines(site, layout, limit_s, multi_node_jobs=multi_node_jobs)
    return {line.key: (line.value, line.instead_of) for line in found}


GOOD = (
    f"Prolog={DIR}/prolog.d/*",
    f"Epilog={DIR}/epilog.d/*",
    f"TaskProlog={OWN}/task_prolog.sh",
    "PrologFlags=Contain",
    "PrologEpilogTimeout=60",
    "MessageTimeout=60",
    "BatchStartTimeout=60",
    "SchedulerParameters=bf_continue,nohold_on_prolog_fail",
    "GresTypes=gpu,nic",
)


def test_a_site_that_has_every_line_needs_none() -> None:
    assert needed(*GOOD) == {}
    assert needed(*(line.replace("=", " = ").upper() for line in GOOD[3:]), *GOOD[:3]) == {}


def test_a_site_that_has_none_needs_every_one() -> None:
    assert list(needed()) == [line.partition("=")[0] for line in GOOD]
    assert needed()["PrologFlags"] == ("Alloc", "")


@pytest.mark.parametrize(
    ("line", "key", "value", "instead_of"),
    [
        ("PrologFlags=Serial", "PrologFlags", "Serial,Alloc", "Serial"),
        ("PrologFlags=RunInJob", "PrologFlags", "Alloc", "RunInJob"),
        ("PrologFlags=DeferBatch,NoHold", "PrologFlags", "DeferBatch,NoHold,Alloc",
         "DeferBatch,NoHold"),
        ("SchedulerParameters=bf_continue", "SchedulerParameters",
         "bf_continue,nohold_on_prolog_fail", "bf_continue"),
        ("GresTypes=nic", "GresTypes", "nic,gpu", "nic"),
        ("PrologEpilogTimeout=59", "PrologEpilogTimeout", "60", "59"),
        ("PrologEpilogTimeout=soon", "PrologEpilogTimeout", "60", "soon"),
        ("MessageTimeout=10", "MessageTimeout", "60", "10"),
        ("BatchStartTimeout=59", "BatchStartTimeout", "60", "59"),
    ],
)  # fmt: skip
def test_a_line_keeps_what_the_site_has(line: str, key: str, value: str, instead_of: str) -> None:
    others = [one for one in GOOD if not one.startswith(f"{key}=")]
    assert needed(*others, line) == {key: (value, instead_of)}


@pytest.mark.parametrize(
    ("present", "value"),
    [
        ("", "Alloc,DeferBatch"),
        ("Serial,NoHold", "Serial,NoHold,Alloc,DeferBatch"),
        # DeferBatch alone does not run the prolog at the allocation.
        ("DeferBatch", "DeferBatch,Alloc"),
        ("Contain,RunInJob", "Contain,DeferBatch"),
    ],
)
def test_one_line_has_every_flag_where_jobs_can_have_several_nodes(
    present: str, value: str
) -> None:
    others = [one for one in GOOD if not one.startswith("PrologFlags=")]
    found = needed(*others, f"PrologFlags={present}", multi_node_jobs=True)
    assert found == {"PrologFlags": (value, present)}


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        (("PrologTimeout=60", "EpilogTimeout=60"), {}),
        (("PrologTimeout=30", "EpilogTimeout=60"), {"PrologTimeout": ("60", "30")}),
        (("PrologTimeout=60",), {"PrologEpilogTimeout": ("60", "")}),
        (("EpilogTimeout=5", "PrologEpilogTimeout=70"), {"EpilogTimeout": ("60", "5")}),
    ],
)
def test_each_hook_may_have_a_limit_of_its_own(
    lines: tuple[str, ...], asked: dict[str, tuple[str, str]]
) -> None:
    others = [one for one in GOOD if not one.startswith("PrologEpilogTimeout")]
    assert needed(*others, *lines) == asked


SCRIPT = f"{OWN}/health_check.sh"
EVERY = {
    "HealthCheckProgram": (SCRIPT, ""),
    "HealthCheckInterval": ("60", ""),
    "HealthCheckNodeState": ("ANY,CYCLE", ""),
}


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ((), EVERY),
        # The timer alone runs nothing.
        (("HealthCheckInterval=30",), {k: EVERY[k] for k in EVERY if k != "HealthCheckInterval"}),
        # Of one environment, which the next release does not have.
        (
            ("HealthCheckProgram=/opt/canhazgpu-0.1/bin/canhazgpu-healthcheck",
             "HealthCheckInterval=60"),
            {"HealthCheckProgram": (SCRIPT, "/opt/canhazgpu-0.1/bin/canhazgpu-healthcheck")},
        ),
        ((f"HealthCheckProgram={SCRIPT}", "HealthCheckInterval=60"), {}),
        # A site's own stays, and Slurm's default is any state.
        (("HealthCheckProgram=/usr/sbin/nhc", "HealthCheckInterval=300"), {}),
        (
            ("HealthCheckProgram=/usr/sbin/nhc", "HealthCheckInterval=0"),
            {"HealthCheckInterval": ("60", "")},
        ),
        (
            ("HealthCheckProgram=/usr/sbin/nhc", "HealthCheckInterval=9",
             "HealthCheckNodeState=IDLE,CYCLE"),
            {"HealthCheckNodeState": ("ANY,CYCLE", "IDLE,CYCLE")},
        ),
    ],
)  # fmt: skip
def test_a_health_check_on_every_node_and_the_sites_own_stays(
    lines: tuple[str, ...], asked: dict[str, tuple[str, str]]
) -> None:
    found = health_lines(settings(*lines), SCRIPT)
    assert {one.key: (one.value, one.instead_of) for one in found} == asked
    assert all(one.reason for one in found)


def test_slurm_gives_a_hook_its_decision_and_its_commands() -> None:
    slurm = SlurmConfig(hook_deadline_s=30.2, command_timeout_s=5)
    assert hook_limit_s(slurm) == 41


def test_every_line_says_why_and_instead_of_what() -> None:
    site = settings("PrologFlags=Serial", "TaskProlog=/site/t.sh")
    text = conf_text(needed_lines(site, plan_layout(site, DIR, {}, {}), 60))
    for paragraph in text.split("\n\n"):
        *comments, line = paragraph.strip().split("\n")
        assert comments and all(one.startswith("# ") for one in comments)
        assert not line.startswith("#") and "=" in line
    assert "# Instead of: PrologFlags=Serial\nPrologFlags=Serial,Alloc\n" in text
    assert "Runs /site/t.sh as well" in text


def test_keys_of_nodes_are_no_settings_of_the_cluster() -> None:
    site = settings("NodeName=n1 Gres=gpu:4", "PartitionName=p Nodes=n1", "GresTypes=gpu")
    assert site.values == {"grestypes": ("gpu",)}


def test_the_controllers_settings() -> None:
    text = (
        "Configuration data as of 2026-01-01\n"
        "Prolog                  = /etc/slurm/prolog.d/*\n"
        "Epilog[0]               = /a\nEpilog[1]               = /b\n"
        "TaskProlog              = (null)\n"
        "PrologFlags             = Alloc,Contain\n"
    )
    shown = parse_show_config(text)
    assert shown.get("Prolog") == "/etc/slurm/prolog.d/*"
    assert shown.all("Epilog") == ("/a", "/b")
    assert shown.get("TaskProlog") == ""
    assert shown.words("PrologFlags") == ("alloc", "contain")

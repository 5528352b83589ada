"""Every template gives exactly the text that is kept in ``golden/``."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import plan_layout
from canhazgpu.templates.agent_units import UNITS, UnitSettings, unit_texts
from canhazgpu.templates.render import TEMPLATES, render, shell, shell_path
from canhazgpu.templates.slurm_files import (
    CHAINS,
    FRAGMENTS,
    HOOKS,
    HookSettings,
    chain_text,
    fragment_texts,
    hook_texts,
    site_script_texts,
)
from canhazgpu.templates.web_unit import WEB_UNIT, web_unit_text

GOLDEN = Path(__file__).parent / "golden"
REFRESH = "CANHAZ_REFRESH_GOLDEN"
# Not CANHAZGPU_…: the configuration refuses variables of that form which it does not know.

PLAIN = HookSettings(
    python="/opt/canhazgpu/bin/python",
    client="/opt/canhazgpu/lib/python3.11/site-packages/canhazgpu/agent/hook_client.py",
    config_file=None,
    state_dir="/run/canhazgpu",
    hook_deadline_s=45.0,
)
EVERYTHING = HookSettings(
    python="/opt/it's here/bin/python",
    client="/opt/it's here/lib/hook_client.py",
    config_file="/etc/canhazgpu/site $(id).toml",
    state_dir="/run/can haz/%n/gpu",
    hook_deadline_s=12.5,
    slurm_dir="/opt/slurm/etc",
    gpus=2,
)
UNIT_SETTINGS = {
    "plain": UnitSettings("/opt/canhazgpu/bin/python", "/run/canhazgpu"),
    "everything": UnitSettings(
        python='/opt/100% it\'s $HOME/"bin"/python',
        state_dir="/run/can haz/gpu-1/%n",
        node="gpu-1",
        config_file="/etc/canhazgpu/50% $(id) \\ é.toml",
        store_dir="/var/lib/can haz/100%",
    ),
}
CHAINED = {
    key: f"/opt/it's the site's/{key.lower()} $(id).sh"
    for key in ("Prolog", "Epilog", "TaskProlog")
}


def texts_of(settings: HookSettings, chained: dict[str, str]) -> dict[str, str]:
    layout = plan_layout(Settings(), settings.slurm_dir, chained, {})
    texts = {
        place.chain.removeprefix(f"{settings.slurm_dir}/"): chain_text(place)
        for place in layout.locations
        if place.chain
    }
    return {**hook_texts(settings), **fragment_texts(settings), **texts}


TEXTS = (
    {
        f"{case}/{name}": text
        for case, settings, chained in (("plain", PLAIN, {}), ("everything", EVERYTHING, CHAINED))
        for name, text in texts_of(settings, chained).items()
    }
    | {
        f"{case}{path}": text
        for case, settings in UNIT_SETTINGS.items()
        for path, text in unit_texts(settings).items()
    }
    | {
        f"plain/{WEB_UNIT}": web_unit_text(PLAIN.python),
        f"everything/{WEB_UNIT}": web_unit_text(
            UNIT_SETTINGS["everything"].python,
            UNIT_SETTINGS["everything"].config_file,
            "/etc/canhazgpu/reader's 100%.login",
        ),
    }
)


@pytest.mark.parametrize("name", TEXTS)
def test_a_template_gives_its_golden_text(name: str) -> None:
    file = GOLDEN / f"{name}.golden"
    if os.environ.get(REFRESH):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEXTS[name], "utf-8")
    kept = file.read_text("utf-8") if file.exists() else ""
    difference = "".join(
        difflib.unified_diff(
            kept.splitlines(keepends=True),
            TEXTS[name].splitlines(keepends=True),
            str(file),
            "rendered",
        )
    )
    assert not difference, f"{difference}\nwhen this is meant: {REFRESH}=1 pytest {__file__}"


def test_every_template_is_rendered_and_every_golden_file_compared() -> None:
    templates = {path.name for path in TEMPLATES.glob("*.j2") if not path.name.startswith("_")}

    assert templates == {
        f"{name}.j2" for name in (*HOOKS, *CHAINS, *FRAGMENTS, *UNITS, "web.service")
    }
    assert {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*.golden")} == {
        f"{name}.golden" for name in TEXTS
    }


def test_what_is_installed_is_what_is_rendered() -> None:
    layout = plan_layout(Settings(), PLAIN.slurm_dir, {}, {})

    assert site_script_texts(PLAIN, layout) == {
        f"{PLAIN.slurm_dir}/{name}": text for name, text in hook_texts(PLAIN).items()
    }


@pytest.mark.parametrize("name", [*HOOKS, *CHAINS, "slurm.conf", *UNITS])
def test_a_missing_value_is_an_error(name: str) -> None:
    with pytest.raises(UndefinedError):
        render(name, {})


@pytest.mark.parametrize("word", ["plain", "", "two words", "it's", "$(id)", "`id`", "a\nb", "*"])
def test_a_word_reaches_the_shell_as_it_is(word: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {shell(word)}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == word


@pytest.mark.parametrize("path", ["/run/%n", "/%n/a b/%n", "/plain", "%n", "/it's %n's/"])
def test_a_path_names_the_node_where_it_says_so(path: str) -> None:
    script = f"node=n1; printf %s {shell_path(path)}"

    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == path.replace("%n", "n1")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck here")
@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".sh")])
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    command = ["shellcheck", "--exclude=SC2016", "-"]  # a "$" in single quotes is meant
    done = subprocess.run(command, input=TEXTS[name], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)

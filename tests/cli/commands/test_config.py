"""`canhazgpu config show`: every key, its value and origin, and no password."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.config.schema import all_keys


def run(*args: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, [*args], obj=App(environ=environ or {}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('[node]\nname = "from-file"\n[store]\ntimeout_s = 3\n')
    return path


def test_each_key_has_value_origin_and_meaning(file: Path) -> None:
    result = run(
        "--config", str(file), "--set", "slurm.export=index", "config", "show", "--json",
        environ={"CANHAZGPU_STORE_TIMEOUT_S": "4"},
    )  # fmt: skip

    shown = json.loads(result.stdout)
    by_key = {one["key"]: one for one in shown["keys"]}
    assert shown["file"] == str(file)
    assert list(by_key) == list(all_keys())
    assert all(one["meaning"] and one["environment"] for one in shown["keys"])
    assert [(by_key[key]["value"], by_key[key]["from"]) for key in (
        "node.name", "store.timeout_s", "slurm.export", "store.history_days",
    )] == [
        ("from-file", f"file {file}"),
        (4.0, "environment CANHAZGPU_STORE_TIMEOUT_S"),
        ("index", "flag"),
        (90, "default"),
    ]  # fmt: skip


def test_the_text_is_a_configuration_file_with_the_same_meaning(file: Path) -> None:
    result = run("--config", str(file), "config", "show")

    sections = tomllib.loads(result.stdout)
    shown = {f"{name}.{key}" for name, content in sections.items() for key in content}
    assert shown == set(all_keys())
    assert sections["node"]["name"] == "from-file"
    assert f'name = "from-file"  # file {file}' in result.stdout
    assert all(key.info.meaning in result.stdout for key in all_keys().values())


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_passwords_are_never_shown(arguments: list[str]) -> None:
    url = "redis://me:hunter2@head:6379/0"

    result = run("config", "show", *arguments, environ={"CANHAZGPU_STORE_URL": url})

    assert "hunter2" not in result.output
    assert "redis://me:***@head:6379/0" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["--set", "store.ulr=x"], {}, "store.ulr"),
        (["--set", "store.timeout_s=soon"], {}, "store.timeout_s"),
        (["--config", "/nonexistent"], {}, "/nonexistent"),
        (["--set", "store.url=http://me:hunter2@head"], {}, "store.url"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], environ: dict[str, str], named: str) -> None:
    result = run(*arguments, "config", "show", environ=environ)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert named in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CANHAZGPU_REDIS_HOST", "ignored: CANHAZGPU_REDIS_HOST;"),
        ("CANHAZGPU_STORE_ULR", "CANHAZGPU_STORE_ULR (did you mean CANHAZGPU_STORE_URL?)"),
    ],
)
def test_variables_that_mean_nothing_are_told_once_and_stop_nothing_here(
    name: str, told: str
) -> None:
    result = run("config", "show", "--json", environ={name: "hunter2"})

    assert result.exit_code == 0
    assert json.loads(result.stdout)
    assert result.stderr.count(name) == 1
    assert told in result.stderr
    assert "hunter2" not in result.output


def test_what_it_prints_is_what_set_reads() -> None:
    shown = run("--set", 'validation.ignore_processes=["root:Xorg"]', "config", "show").stdout
    line = next(one for one in shown.splitlines() if one.startswith("ignore_processes"))
    value = line.partition("  # ")[0].partition(" = ")[2]

    again = run("--set", f"validation.ignore_processes={value}", "config", "show").stdout

    assert (value, again) == ('["root:Xorg"]', shown)

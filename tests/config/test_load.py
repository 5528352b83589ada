"""The four places a configuration comes from, and what is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.config import Config, load
from canhazgpu.config.key import MAX_WAIT_S
from canhazgpu.config.schema import all_keys
from canhazgpu.errors import ConfigError

SECRET = "hunter2-s3cr3t"


@pytest.fixture(autouse=True)
def no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The default file is one of the test's own, absent at first."""
    default = tmp_path / "default" / "config.toml"
    monkeypatch.setattr(sys.modules["canhazgpu.config.load"], "DEFAULT_CONFIG_FILE", default)
    return default


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refusal(tmp_path: Path, text: str | bytes = "", **environ: str) -> str:
    """Load what must be refused and return what the user reads: one line, without a secret."""
    file = write(tmp_path / "named.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(environ, file=file)
    told = str(caught.value)
    assert SECRET not in told
    assert "\n" not in told
    return told


def test_without_anything_the_defaults_are_in_force() -> None:
    found = load({})
    assert found.config == Config()
    assert found.file is None
    assert set(found.origins.values()) == {"default"}


def test_every_default_is_accepted_where_users_set_it(tmp_path: Path) -> None:
    environ = {one.variable: as_text(one.default) for one in all_keys().values()}
    assert load(environ).config == Config()
    assert load({}, overrides={name: as_text(one.default) for name, one in all_keys().items()})


def as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", ()), ("Xorg", ("Xorg",)), ("Xorg, root:dcgm", ("Xorg", "root:dcgm"))],
)
def test_a_list_outside_the_file_is_parted_by_commas(given: str, expected: object) -> None:
    overrides = {"validation.ignore_processes": given}
    assert load({}, overrides=overrides).config.validation.ignore_processes == expected


def test_a_list_in_the_file_is_a_list(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[validation]\nignore_users = ["gdm", "monitor"]\n')
    config = load({}, file=str(file)).config
    assert config.validation.ignore_users == ("gdm", "monitor")


@pytest.mark.parametrize(
    ("key", "value"),
    [("ignore_users", "[1]"), ("ignore_users", '["a", " "]'), ("health_checks", '["mood"]')],
)
def test_a_list_of_something_else_is_refused(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[validation]\n{key} = {value}\n")
    with pytest.raises(ConfigError, match="a list of"):
        load({}, file=str(file))


@pytest.mark.parametrize(
    ("places", "value", "origin"),
    [
        ("", 2.0, "default"),
        ("f", 3.0, "file"),
        ("e", 4.0, "environment CANHAZGPU_STORE_TIMEOUT_S"),
        ("o", 5.0, "flag"),
        ("fe", 4.0, "environment CANHAZGPU_STORE_TIMEOUT_S"),
        ("fo", 5.0, "flag"),
        ("eo", 5.0, "flag"),
        ("feo", 5.0, "flag"),
    ],
)
def test_a_flag_beats_the_environment_beats_the_file(
    tmp_path: Path, places: str, value: float, origin: str
) -> None:
    file = write(tmp_path / "c.toml", "[store]\ntimeout_s = 3\n") if "f" in places else None
    found = load(
        {"CANHAZGPU_STORE_TIMEOUT_S": "4"} if "e" in places else {},
        file=file,
        overrides={"store.timeout_s": "5"} if "o" in places else None,
    )
    assert found.config.store.timeout_s == value
    assert type(found.config.store.timeout_s) is float
    assert found.origins["store.timeout_s"] == (f"file {file}" if origin == "file" else origin)


def test_the_named_file_beats_the_variables_beats_the_default(
    tmp_path: Path, no_file_of_this_machine: Path
) -> None:
    default, variable, named = (
        write(path, f"[store]\nhistory_days = {days}\n")
        for path, days in (
            (no_file_of_this_machine, 1),
            (tmp_path / "b.toml", 2),
            (tmp_path / "c.toml", 3),
        )
    )
    environ = {"CANHAZGPU_CONFIG": variable}
    assert load({}).config.store.history_days == 1
    assert load({}).file == Path(default)
    assert load(environ).config.store.history_days == 2
    assert load(environ, file=named).config.store.history_days == 3
    assert load({"CANHAZGPU_CONFIG": ""}).config.store.history_days == 1


def test_a_later_place_does_not_excuse_an_earlier_one(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "[store]\ntimeout_s = -3\n")
    with pytest.raises(ConfigError, match=r"store\.timeout_s = -3 \(file .*c\.toml\)"):
        load({}, file=file, overrides={"store.timeout_s": "5"})


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load({}).config.store.timeout_s = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[stor]\nurl = 'x'\n", "unknown section [stor] in"),
        ("[store]\ntimout_s = 3\n", "did you mean store.timeout_s?"),
        ("[store]\nzzz = 3\n", "--config /dev/null config show' lists them"),
        ("store = 3\n", "write [store]"),
        ("[[store]]\nurl = 'x'\n", "write [store]"),
        ("url = 3\n", "unknown section [url]"),
        ("[store.url]\nhost = 'x'\n", "store.url = the given value"),
    ],
)
def test_what_is_unknown_in_a_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    found = refusal(tmp_path, text)
    assert told in found
    assert str(tmp_path / "named.toml") in found


PRINTED = [
    ("validation.ignore_processes", '["root:Xorg"]', ("root:Xorg",)),
    ("validation.ignore_processes", ' ["root:Xorg", "dcgm, old"] ', ("root:Xorg", "dcgm, old")),
    ("validation.ignore_processes", "[]", ()),
    ("validation.ignore_processes", "root:Xorg, dcgm", ("root:Xorg", "dcgm")),
    ("store.on_failure", '"fail"', "fail"),
    ("store.on_failure", "fail", "fail"),
    ("node.name", '"a\\u00e9"', "a\u00e9"),
    ("validation.memory_threshold_mb", "512", 512),
    ("store.timeout_s", "2.5", 2.5),
]


@pytest.mark.parametrize(("key", "text", "value"), PRINTED)
def test_what_config_show_prints_is_read_outside_the_file_too(
    key: str, text: str, value: object
) -> None:
    section, name = key.split(".")
    by_flag = load({}, overrides={key: text})
    by_variable = load({f"CANHAZGPU_{section}_{name}".upper(): text})
    for found in (by_flag, by_variable):
        assert getattr(getattr(found.config, section), name) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("validation.ignore_processes", '["Xorg"'),
        ("validation.ignore_processes", "[7]"),
        ("validation.ignore_processes", "[" * 9000),
        ("validation.health_checks", '["fan"]'),
        ("store.on_failure", '"fail'),
        ("store.on_failure", '"sometimes"'),
    ],
)
def test_what_is_almost_that_is_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load({}, overrides={key: text})


def test_what_is_unknown_among_the_flags_is_named() -> None:
    with pytest.raises(ConfigError, match=r"command line; did you mean store\.url\?"):
        load({}, overrides={"store.urls": "x"})


def test_other_programs_variables_are_none_of_ours() -> None:
    assert load({"PATH": "/bin", "canhazgpu_x": "1", "CANHAZ": "2", "": "3"}).config == Config()


WRONG = [
    ("store.timeout_s", "'soon'", "a number"),
    ("store.timeout_s", "true", "a number"),
    ("store.timeout_s", "nan", "above 0"),
    ("store.timeout_s", "inf", "above 0"),
    ("store.timeout_s", "-inf", "above 0"),
    ("store.timeout_s", "0", "above 0"),
    ("store.timeout_s", "-1", "above 0"),
    ("store.timeout_s", "1e300", "at most"),
    ("store.timeout_s", "[1]", "a number"),
    ("store.timeout_s", "''", "a number"),
    ("validation.scan_timeout_s", "1979-05-27", "a number"),
    ("validation.memory_threshold_mb", "1.5", "a whole number"),
    ("validation.memory_threshold_mb", "nan", "a whole number"),
    ("validation.memory_threshold_mb", "-1", "from 0 up"),
    ("validation.memory_threshold_mb", "''", "a whole number"),
    ("validation.memory_threshold_mb", "false", "a whole number"),
    ("validation.nvml_library", "'libnvidia-ml.so.1'", "an absolute path"),
    ("validation.nvml_library", "5", "a string"),
    ("store.history_days", "0", "from 1 up"),
    ("store.history_days", "9" * 400, "at most"),
    ("run.max_reserve_s", "inf", "at most"),
    ("run.max_reserve_s", "nan", "at most"),
    ("web.poll_s", "inf", "at most"),
    ("agent.max_hooks", "1000000000000", "at most"),
    ("agent.max_waiters_per_user", "0", "from 1 up"),
    ("agent.operators", "['@']", "a list of users and groups"),
    ("agent.operators", "['']", "a list of users and groups"),
    ("agent.users", "['@@staff']", "a list of users and groups"),
    ("agent.users", "['ann bob']", "a list of users and groups"),
    ("agent.users", "['ann:5']", "a list of users and groups"),
    ("agent.users", "[5]", "a list of words"),
    ("run.max_gpus", "-1", "from 0 up"),
    ("run.max_gpus", "1.5", "a whole number"),
    ("run.max_memory_threshold_mb", "-1", "from 0 up"),
    ("store.embedded_dir", "''", "an absolute path"),
    ("node.state_dir", "'run'", "an absolute path"),
    ("node.name", "5", "a string"),
    ("slurm.assignment", "'Slurm'", '"auto" or "slurm" or "canhazgpu"'),
    ("slurm.export", "''", '"auto" or "uuid" or "index"'),
    ("slurm.export_also", "['PATH']", "a list of NVIDIA_VISIBLE_DEVICES, "),
    ("slurm.export_also", "['NVIDIA_VISIBLE_DEVICES', 'LD_PRELOAD']", "a list of NVIDIA_"),
    ("slurm.export_also", "['NVIDIA_VISIBLE_DEVICES=1']", "a list of NVIDIA_VISIBLE_DEVICES, "),
]


@pytest.mark.parametrize(("key", "value", "accepted"), WRONG)
def test_a_wrong_value_says_key_place_and_what_is_right(
    tmp_path: Path, key: str, value: str, accepted: str
) -> None:
    section, name = key.split(".")
    told = refusal(tmp_path, f"[{section}]\n{name} = {value}\n")
    assert told.startswith(f"{key} = ")
    assert f"(file {tmp_path / 'named.toml'})" in told
    assert accepted in told.partition("accepted: ")[2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store.timeout_s", value)
        for value in ("", " ", "nan", "inf", "-1", "0", "true", "2s", "1e300", str(MAX_WAIT_S + 1))
    ]
    + [("validation.memory_threshold_mb", value) for value in ("", "1.0", "0x10", "-1", "None")]
    + [("store.url", value) for value in ("", "localhost", f"http://x:{SECRET}@h", SECRET)],
)
def test_a_wrong_text_is_refused_from_the_environment_and_as_a_flag(
    tmp_path: Path, key: str, value: str
) -> None:
    variable = all_keys()[key].variable
    told = refusal(tmp_path, **{variable: value})
    assert told.startswith(f"{key} = ")
    assert f"(environment {variable})" in told
    with pytest.raises(ConfigError, match=r"\(flag\)"):
        load({}, overrides={key: value})


@pytest.mark.parametrize(
    "text",
    [
        f"[store]\nurl = 'redis//:{SECRET}@host'\n",
        f"[store]\nurl = ['{SECRET}']\n",
        f"[store]\nurl = {{password = '{SECRET}'}}\n",
        f"[store]\nurl = 'redis://:{SECRET}@host\n",
        f"[store]\nurl = redis://:{SECRET}@host\n",
        f"[store]\nurl = 'redis://host'\npassword = '{SECRET}'\n",
        f"[store]\nurl = 'x{SECRET}'\nurl = 'y{SECRET}'\n",
        f"store = 'redis://:{SECRET}@host'\n",
    ],
)
def test_no_refusal_repeats_a_secret(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[store\n",
        b"=",
        b"\x00",
        b"a = 1" + b"0" * 5000,
        b"a = " + b"[" * 100_000,
        b"a = 2026-13-45",
    ],
)
def test_what_is_not_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    assert "is not TOML" in refusal(tmp_path, text)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    for environ, file in (({}, missing), ({"CANHAZGPU_CONFIG": missing}, None)):
        with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
            load(environ, file=file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load({}, file=str(tmp_path))


UNREADABLE = """
import os, sys
from pathlib import Path
import importlib
loading = importlib.import_module("canhazgpu.config.load")
from canhazgpu.errors import ConfigError
loading.DEFAULT_CONFIG_FILE = Path(sys.argv[1])
import difflib
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    loading.load({})
except ConfigError as exc:
    print(exc)
"""


@pytest.mark.release
@pytest.mark.parametrize("closed", ["file", "directory"])
def test_a_default_file_that_may_not_be_read_is_refused(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "etc" / "config.toml"
    write(file, "[store]\n")
    (file if closed == "file" else file.parent).chmod(0)
    try:
        told = subprocess.run(
            [sys.executable, "-c", UNREADABLE, str(file)],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.parent.chmod(0o755)
    assert told.stdout == f"cannot read configuration file {file}: Permission denied\n", told.stderr


@given(
    st.dictionaries(
        st.sampled_from([one.variable for one in all_keys().values()]),
        st.text(st.characters(codec="utf-8"), max_size=30),
        max_size=4,
    )
)
def test_any_text_is_accepted_or_refused(environ: dict[str, str]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load(environ).config, Config)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "20.1", "3600"])
def test_a_heartbeat_that_would_come_too_late_is_refused(seconds: str) -> None:
    with pytest.raises(ConfigError, match="a number above 0, at most 20"):
        load({}, overrides={"run.heartbeat_s": seconds})
    assert load({}, overrides={"run.heartbeat_s": "20"}).config.run.heartbeat_s == 20


def test_a_file_with_other_text_and_the_same_times_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "[slurm]\nhook_deadline_s = 30.0\n")
    known = Path(file).stat()
    assert load({}, file=file).config.slurm.hook_deadline_s == 30
    write(tmp_path / "c.toml", "[slurm]\nhook_deadline_s = 31.0\n")
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert load({}, file=file).config.slurm.hook_deadline_s == 31
    assert (
        load({"CANHAZGPU_SLURM_HOOK_DEADLINE_S": "32"}, file=file).config.slurm.hook_deadline_s
        == 32
    )
    assert (
        load({}, file=file, overrides={"slurm.hook_deadline_s": "33"}).config.slurm.hook_deadline_s
        == 33
    )

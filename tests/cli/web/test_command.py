"""`canhazgpu web` before it serves: what it needs, and where it may listen."""

from __future__ import annotations

import importlib.util
import socket

import pytest
from click.testing import CliRunner, Result

from canhazgpu.cli.main import cli


def run(*words: str) -> Result:
    env = {"CANHAZGPU_CONFIG": "/dev/null", "CANHAZGPU_STORE_URL": "redis://127.0.0.1:1/0"}
    return CliRunner().invoke(cli, words, env=env)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in ("starlette", "uvicorn") else find(name, *more),
    )
    done = run("web")
    assert done.exit_code == 2
    assert "starlette, uvicorn" in done.stderr
    assert "-m pip install 'canhazgpu[web]'" in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("web", "--listen", address)
    assert done.exit_code == 2
    assert f"web.listen = '{address}': Address already in use" in done.stderr


@pytest.mark.parametrize("address", ["8090", "localhost:8090", "127.0.0.1", "127.0.0.1:x", "::1:9"])
def test_what_is_no_address_is_refused(address: str) -> None:
    done = run("web", "--listen", address)
    assert done.exit_code == 2
    assert "web.listen" in done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root_path", "gpus/"),
        ("user_header", "X Remote"),
        ("trusted_proxies", '["head"]'),
        ("poll_s", "0"),
        ("max_viewers", "0"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: str) -> None:
    done = run("--set", f"web.{key}={value}", "web")
    assert done.exit_code == 2
    assert f"web.{key}" in done.stderr

"""What a handler prepares, and what its parent keeps for it: both read, and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.agent.handler.preparation import prepare_handler
from canhazgpu.agent.listener.handler_cache import fill_handler_cache
from canhazgpu.config import load
from canhazgpu.ledger.store import client
from canhazgpu.schedulers.slurm.conf import conf_files

CONFIG = """
[store]
url = "{url}"
[node]
state_dir = "{directory}/state"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "slurm.conf").write_text("NodeName=n1 Gres=gpu:1\n")
    write_config(tmp_path, "redis://127.0.0.1:1/0")
    return {
        "CANHAZGPU_CONFIG": str(tmp_path / "config.toml"),
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "SLURMD_NODENAME": "n1",
    }


def write_config(directory: Path, url: str) -> None:
    content = CONFIG.format(directory=directory, url=url)
    (directory / "config.toml").write_text(content)


def test_it_changes_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    prepare_handler(environ)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_read_is_left_to_the_request(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "slurm.conf").write_text("Include nothing.conf\n")
    (tmp_path / "config.toml").write_text("[nonsense")
    prepare_handler(environ)
    fill_handler_cache(load({}, file="/dev/null").config, "n1", environ)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "embedded", "redis+cluster://h"])
def test_the_listener_keeps_what_files_mean_and_a_client(
    environ: dict[str, str], tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_prepared", {})
    write_config(tmp_path, url)
    fill_handler_cache(load(environ).config, "n1", environ)
    assert len(client._prepared) == (url in ("redis://127.0.0.1:1/0", "embedded"))
    known = conf_files._parsed.cache_info()
    prepare_handler(environ)
    assert conf_files._parsed.cache_info().misses == known.misses
    assert conf_files._parsed.cache_info().hits > known.hits

"""`store.login_file`: who logs in as whom, and what an unusable file means."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError, error_text
from canhazgpu.ledger.store.connect import Role, connect, translate_errors
from canhazgpu.ledger.store.login import address_with_login

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def file() -> Iterator[Path]:
    """Where every user may look: pytest's own directory is closed to others."""
    with tempfile.TemporaryDirectory(prefix="chg-login-") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "store.login"
        path.write_text("canhazgpu-node-n1:p:w%41\n")
        path.chmod(0o600)
        yield path


def config(file: Path, url: str = "redis://canhazgpu-reader:open@head") -> StoreConfig:
    return StoreConfig(url=url, login_file=str(file))


def login(store: StoreConfig) -> tuple[str | None, str | None]:
    found = address_with_login(store)
    return found.username, found.password


def test_the_file_wins_over_the_url_and_is_taken_as_it_is(file: Path) -> None:
    assert login(config(file)) == ("canhazgpu-node-n1", "p:w%41")
    assert login(StoreConfig(url="redis://a:b@head")) == ("a", "b")


@needs_root
def test_who_may_not_read_it_keeps_the_login_of_the_url(file: Path) -> None:
    with as_nobody():
        assert login(config(file)) == ("canhazgpu-reader", "open")
        assert login(config(file.with_name("absent"))) == ("canhazgpu-reader", "open")
    file.chmod(0o640)
    os.chown(file, 0, NOBODY)
    before = os.getegid()
    os.setegid(NOBODY)
    try:
        with as_nobody():
            assert login(config(file)) == ("canhazgpu-node-n1", "p:w%41")
    finally:
        os.setegid(before)


def absent(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@needs_root
@pytest.mark.parametrize(
    "break_it",
    [
        absent,
        directory,
        fifo,
        lambda path: path.write_text(""),
        lambda path: path.write_text("password\n"),
        lambda path: path.write_text("a:b\nc:d\n"),
        lambda path: path.write_bytes(b"\xff" * 5000),
    ],
)
def test_root_is_told_of_a_file_that_cannot_be_used(
    file: Path, break_it: Callable[[Path], object]
) -> None:
    break_it(file)

    with pytest.raises(StoreError, match=f"store.login_file {file} cannot be used: "):
        connect(config(file), Role.READ)


def test_no_error_shows_the_password(file: Path) -> None:
    file.write_text("ann:geheim\n")
    with PrivateRedis(tcp=True) as server:
        store = config(file, server.url)
        with (
            pytest.raises(StoreError, match="refused to log in") as caught,
            translate_errors(store),
        ):
            connect(store, Role.READ).ping()
        server_text = error_text(caught.value)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "ann", "on", ">geheim", "~*", "+@all")
        with pytest.raises(StoreError) as caught, translate_errors(store):
            connect(store, Role.READ).execute_command("NOSUCH", "geheim")
    assert "geheim" not in server_text + error_text(caught.value)
    assert str(file) in server_text

"""`canhazgpu store acl` as a program: what it prints and writes, and that a server takes it."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from servers.private_redis import PrivateRedis, free_port

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli

SLURM_CONF = """\
ClusterName=c1
NodeName=DEFAULT Gres=gpu:2
NodeName=g[1-2]
NodeName=cpu1 Gres=craynetwork:1
NodeName=g3 Gres=gpu:h100:8,shard:4
"""


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis(tcp=True) as one:
        yield one


def run(url: str, *args: str | Path, **environ: str) -> Result:
    known = {"SLURM_CONF": "/nowhere/slurm.conf", "CANHAZGPU_STORE_URL": url, **environ}
    return CliRunner().invoke(
        cli, ["store", "acl", *map(str, args)], obj=App(environ=known), catch_exceptions=False
    )


def dead_url() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def names(result: Result) -> list[str]:
    return [line.split()[1] for line in result.stdout.splitlines()]


NODES = ["canhazgpu-node-n1", "canhazgpu-node-n2"]
ALL = [*NODES, "canhazgpu-reader", "canhazgpu-order", "canhazgpu-admin"]


def test_users_are_printed_with_the_digests_of_passwords_that_are_printed_once() -> None:
    result = run(dead_url(), "--node", "n[1-2]")

    assert (result.exit_code, names(result)) == (0, ALL)
    passwords = dict(
        line.removeprefix("password of ").split(": ") for line in result.stderr.splitlines()
    )
    assert list(passwords) == ALL
    assert len(set(passwords.values())) == len(ALL)
    for line in result.stdout.splitlines():
        user = line.split()[1]
        digest = hashlib.sha256(passwords[user].encode()).hexdigest()
        assert line.startswith(f"user {user} reset on #{digest} ")
        assert passwords[user] not in result.stdout
    assert "default" not in result.stdout


def test_passwords_in_files_stay_and_are_never_printed(tmp_path: Path) -> None:
    logins = tmp_path / "logins"
    first = run(dead_url(), "--node", "n1", "--logins", logins)
    again = run(dead_url(), "--node", "n[1-2]", "--logins", logins)

    assert stat.S_IMODE(logins.stat().st_mode) == 0o700
    for user in ALL:
        path = logins / f"{user}.login"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        name, password = path.read_text().strip().split(":")
        assert name == user
        assert password not in first.output + again.output
        assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in again.stdout
    assert set(first.stdout.splitlines()) < set(again.stdout.splitlines())


@pytest.mark.parametrize(
    "content", ["", "no colon", "other:password", "canhazgpu-reader:a b", ":x"]
)
def test_a_file_with_something_else_is_no_password(tmp_path: Path, content: str) -> None:
    (tmp_path / "canhazgpu-reader.login").write_text(content)

    result = run(dead_url(), "--node", "n1", "--role", "reader", "--logins", tmp_path)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "canhazgpu-reader.login" in result.stderr and "move it away" in result.stderr


def test_nodes_come_from_slurm_conf_and_from_the_ledger(
    server: PrivateRedis, tmp_path: Path
) -> None:
    (tmp_path / "slurm.conf").write_text(SLURM_CONF)
    with server.client() as client:
        client.sadd("canhazgpu:nodes", "people1", "g2")

    result = run(server.url, "--role", "node", SLURM_CONF=str(tmp_path / "slurm.conf"))

    assert names(result) == [f"canhazgpu-node-{one}" for one in ("g1", "g2", "g3", "people1")]


def test_without_the_ledger_the_nodes_of_slurm_conf_are_told(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(SLURM_CONF)

    result = run(dead_url(), "--role", "node", SLURM_CONF=str(tmp_path / "slurm.conf"))

    assert names(result) == [f"canhazgpu-node-g{n}" for n in (1, 2, 3)]
    assert "nodes of slurm.conf alone: cannot reach the store" in result.stderr


def test_without_any_node_it_says_how_to_name_them(server: PrivateRedis) -> None:
    for url, status in ((server.url, 2), (dead_url(), 4)):
        result = run(url)

        assert (result.exit_code, result.stdout) == (status, "")
        assert "--node gpu[01-16]" in result.stderr


@pytest.mark.parametrize(
    "node", ["n*", "n\u00a01", "n{1}", "-n", "ä", "n1\nuser x on nopass ~* +@all"]
)
def test_what_is_no_nodes_name_is_refused(node: str) -> None:
    result = run(dead_url(), "--node", node)

    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    "prefix", ["a:b", "a*", "", "a b", "{a}", "a-node", "x-node-y", "a" * 65, "-a", "a?"]
)
def test_a_prefix_that_is_no_word_is_refused(prefix: str) -> None:
    result = run(dead_url(), "--node", "n1", CANHAZGPU_STORE_PREFIX=prefix)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "store.prefix" in result.stderr


def test_users_and_keys_have_the_prefix() -> None:
    result = run(dead_url(), "--node", "n1", CANHAZGPU_STORE_PREFIX="cluster-b")

    assert names(result) == [
        f"cluster-b-{role}" for role in ("node-n1", "reader", "order", "admin")
    ]
    assert "canhazgpu" not in result.stdout
    assert "~cluster-b:{n1}:* " in result.stdout


def test_json_has_all(tmp_path: Path) -> None:
    users = json.loads(run(dead_url(), "--node", "n1", "--json").stdout)["users"]

    assert [(one["name"], one["role"], one["node"]) for one in users] == [
        ("canhazgpu-node-n1", "node", "n1"),
        ("canhazgpu-reader", "reader", None),
        ("canhazgpu-order", "order", None),
        ("canhazgpu-admin", "admin", None),
    ]
    assert all(one["line"] and one["password"] and not one["login_file"] for one in users)
    kept = json.loads(run(dead_url(), "--node", "n1", "--logins", tmp_path, "--json").stdout)
    assert all(one["login_file"] and not one["password"] for one in kept["users"])


def test_a_server_takes_the_file_and_the_logins_work(tmp_path: Path) -> None:
    acl, logins = tmp_path / "users.acl", tmp_path / "logins"
    result = run(dead_url(), "--node", "n[1-2]", "--logins", logins, "--output", acl)
    assert (result.exit_code, result.stdout) == (0, "")
    tmp_path.chmod(0o755)

    with PrivateRedis(tcp=True, settings={"aclfile": str(acl)}) as server:
        admin = {"CANHAZGPU_STORE_LOGIN_FILE": str(logins / "canhazgpu-admin.login")}
        check = run(server.url, "--check", "--node", "n[1-2]", "--json", **admin)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "off")
        closed = run(server.url, "--check", "--node", "n[1-2]", **admin)
        denied = run(server.url, "--check", "--node", "n1")

    found = json.loads(check.stdout)
    assert [(one["user"], one["problem"]) for one in found["problems"]] == [("default", "too much")]
    assert (check.exit_code, found["users"]) == (1, ALL)
    assert (closed.exit_code, closed.stdout) == (
        0,
        f"{len(ALL)} of {len(ALL)} users are as they should be\n",
    )
    assert denied.exit_code == 4


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="there is no redis-cli here")
def test_redis_cli_takes_the_commands_and_other_users_stay(
    server: PrivateRedis, tmp_path: Path
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "web", "on", ">x", "~web:*", "+@all")
        before = client.execute_command("ACL", "LIST")
        printed = run(server.url, "--node", "n1", "--logins", tmp_path, "--commands")

        done = subprocess.run(
            ["redis-cli", "-p", str(server.port)],
            input=printed.stdout,
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout.split() == ["OK"] * len(ALL[1:])
        assert set(before) < set(client.execute_command("ACL", "LIST"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("user default on nopass ~* &* +@all\n", "default"),
        ("user canhazgpu-reader on\nuser web on >x ~web:*\n", "web"),
        ("user canhazgpu on >x ~canhazgpu:*\n", "canhazgpu"),
        ("user other-node-n1 on\n", "other-node-n1"),
        ("port 0\n", "lines that are no users"),
        ("user canhazgpu-reader on\nsomething else\n", "lines that are no users"),
    ],
)
def test_a_file_with_other_users_is_not_written_over(
    tmp_path: Path, content: str, told: str
) -> None:
    acl, logins = tmp_path / "users.acl", tmp_path / "logins"
    acl.write_text(content)

    result = run(dead_url(), "--node", "n1", "--output", acl, "--logins", logins)

    assert (result.exit_code, acl.read_text()) == (2, content)
    assert told in result.stderr and "--commands" in result.stderr
    assert not logins.exists()


def test_a_file_of_ours_is_replaced_as_a_whole(tmp_path: Path) -> None:
    acl = tmp_path / "users.acl"
    run(dead_url(), "--node", "n1", "--output", acl)
    result = run(dead_url(), "--node", "n2", "--output", acl)

    assert result.exit_code == 0
    assert [line.split()[1] for line in acl.read_text().splitlines()] == [
        "canhazgpu-node-n2",
        *ALL[2:],
    ]


@pytest.mark.parametrize("what", ["directory", "link", "fifo"])
def test_what_is_no_file_is_left(tmp_path: Path, what: str) -> None:
    import os

    acl, target = tmp_path / "users.acl", tmp_path / "target"
    target.write_text("")
    if what == "directory":
        acl.mkdir()
    elif what == "link":
        acl.symlink_to(target)
    else:
        os.mkfifo(acl)

    result = run(dead_url(), "--node", "n1", "--output", acl)

    assert result.exit_code == 2
    assert "users.acl" in result.stderr
    assert target.read_text() == ""


def test_check_takes_no_other_options(tmp_path: Path) -> None:
    assert run(dead_url(), "--check", "--logins", tmp_path).exit_code == 2
    assert run(dead_url(), "--check", "--commands").exit_code == 2


def test_the_embedded_store_has_its_own_users() -> None:
    result = run("embedded", "--node", "n1")

    assert result.exit_code == 2
    assert "private server of one node" in result.stderr

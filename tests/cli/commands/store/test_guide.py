"""What the documents tell administrators to do with redis-cli, the administrator's user may do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from servers.private_redis import BINARIES, PrivateRedis, need_binary

from canhazgpu.ledger.store.acl.users import store_users

DOCUMENTS = sorted((Path(__file__).parents[4] / "docs" / "admin").glob("*.md"))
COMMAND = re.compile(r"redis-cli((?: [^`|\n#]*)?)")


def commands() -> set[tuple[str, ...]]:
    """The commands of Redis in the documents, with a key where the shell would add one."""
    found = set()
    for document in DOCUMENTS:
        for line in COMMAND.findall(document.read_text("utf-8")):
            words = shlex.split(line.strip(" )"))
            while words and words[0].startswith("-"):
                words = ["SCAN", "0"] if words[0] == "--scan" else words[2:]
            if words:
                added = {"UNLINK": ["canhazgpu:x"], "DELUSER": ["canhazgpu-reader"]}
                found.add((*words, *added.get(words[-1].upper(), [])))
    return found


def test_the_documents_have_commands() -> None:
    shown = {" ".join(one).upper() for one in commands()}

    assert {"PING", "SCAN 0", "ACL SAVE", "ACL SETUSER DEFAULT OFF"} <= shown
    assert any(one.startswith("CONFIG GET") for one in shown)


@pytest.mark.parametrize("kind", BINARIES)
def test_the_administrators_user_may_give_each(kind: str) -> None:
    with PrivateRedis(binary=need_binary(kind)) as server, server.client() as client:
        admin = store_users("canhazgpu", ())[-1]
        client.execute_command("ACL", "SETUSER", *admin.line("0" * 64).split()[1:])

        answers = {
            command: client.execute_command("ACL", "DRYRUN", admin.name, *command)
            for command in commands()
        }

    assert set(answers.values()) == {"OK"}, answers

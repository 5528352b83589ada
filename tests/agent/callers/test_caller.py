"""Who is at the other end of a connection, by real processes of many users."""

from __future__ import annotations

import os
import pwd
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hosts.peers import accepted_from, become, become_in_user_namespace

from canhazgpu.agent.callers import name_service
from canhazgpu.agent.callers.account_files import AccountFiles
from canhazgpu.agent.callers.caller import caller_of, known_caller
from canhazgpu.agent.callers.name_service import NO_ANSWER, Questions, ask_name_service
from canhazgpu.agent.callers.ordering_user import rights_of_ordering_user
from canhazgpu.agent.peer import peer_groups, peer_of
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.config.schema import AgentConfig
from canhazgpu.node.users import Caller

ANN, BOB, STRANGER = 4001, 4002, 4009
SUB_ANN, SUB_BOB, SUB_ROOT, SUB_NOBODY = 4_100_000_005, 4_100_065_536, 4_100_200_001, 4_100_300_001
STAFF = 4100
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")


def caller_who(path: Path, etc: Path, prepare: Callable[[], None], **agent: Any) -> Caller:
    with accepted_from(path, prepare) as accepted:
        request = Request(
            accepted, b"", b"", RequestSocket.PEOPLE, peer_of(accepted), {}, os.getpid(), 0
        )
        return caller_of(request, AgentConfig(**agent), AccountFiles(etc))


@as_root
@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (0, (0, "root", True, True)),
        (ANN, (ANN, "ann", True, False)),
        (SUB_ANN, (ANN, "ann", True, False)),
        (SUB_BOB, (BOB, "bob", True, False)),
        (SUB_ROOT, (SUB_ROOT, str(SUB_ROOT), False, False)),
        (SUB_NOBODY, (SUB_NOBODY, str(SUB_NOBODY), False, False)),
        (STRANGER, (STRANGER, str(STRANGER), False, False)),
    ],
)
def test_the_kernel_and_the_accounts_say_who_calls(
    path: Path, etc: Path, uid: int, expected: tuple[int, str, bool, bool]
) -> None:
    found = caller_who(path, etc, lambda: become(uid))

    rights = found.rights
    assert (found.uid, found.user, rights.may_reserve, rights.may_administrate) == expected


def root_of_a_namespace() -> None:
    """What `unshare -r` does: root inside, and the user outside."""
    become_in_user_namespace(ANN, f"0 {ANN} 1")
    assert os.getuid() == 0


def user_of_a_namespace() -> None:
    """A rootless container's process, which is uid 5 inside."""
    become_in_user_namespace(ANN, f"0 {ANN} 1\n1 {SUB_ANN - 4} 1000")
    os.setgroups([])
    os.setgid(5)
    os.setuid(5)
    assert os.getuid() == 5


@as_root
@pytest.mark.parametrize("prepare", [root_of_a_namespace, user_of_a_namespace])
def test_who_a_process_is_inside_a_user_namespace_counts_for_nothing(
    path: Path, etc: Path, prepare: Callable[[], None]
) -> None:
    found = caller_who(path, etc, prepare, operators=("ann", "root"))

    assert (found.uid, found.user) == (ANN, "ann")
    # Root inside is ann outside; any other process inside is a container's of hers.
    assert found.rights.may_administrate is (prepare is root_of_a_namespace)


@as_root
@pytest.mark.parametrize(
    ("uid", "groups", "listed", "expected"),
    [
        (ANN, (), ("ann",), True),
        (ANN, (), (str(ANN),), True),
        (ANN, (), ("bob",), False),
        (ANN, (), ("@staff",), False),
        (ANN, (STAFF,), ("@staff",), True),
        (ANN, (STAFF,), (f"@{STAFF}",), True),
        (ANN, (STAFF,), ("staff",), False),
        # Only the process's own groups count: who left a group left it.
        (ANN, (), ("@gpus",), False),
        (ANN, (), ("nobody-there", "@no-such-group"), False),
        (SUB_ANN, (), ("ann",), True),
        (SUB_ANN, (STAFF,), ("@staff",), True),
        (STRANGER, (STAFF,), ("@staff", str(STRANGER)), False),
    ],
)
def test_a_site_names_users_and_groups(
    path: Path,
    etc: Path,
    uid: int,
    groups: tuple[int, ...],
    listed: tuple[str, ...],
    expected: bool,
) -> None:
    def prepare() -> None:
        become(uid, groups)

    assert caller_who(path, etc, prepare, users=listed).rights.may_reserve is expected
    path.unlink()
    administrates = caller_who(path, etc, prepare, operators=listed).rights.may_administrate
    assert administrates is (expected and uid != SUB_ANN)


@as_root
def test_the_group_by_which_a_process_runs_counts(path: Path, etc: Path) -> None:
    found = caller_who(path, etc, lambda: become(ANN, gid=STAFF), operators=("@staff",))
    assert found.rights.may_administrate


@as_root
@pytest.mark.parametrize("count", [0, 1, 256, 257, 65_536])
def test_all_groups_of_a_process_are_known(path: Path, count: int) -> None:
    groups = tuple(range(100, 100 + count))
    with accepted_from(path, lambda: become(ANN, groups)) as accepted:
        assert peer_groups(accepted) == groups


@pytest.mark.parametrize(
    ("uid", "listed", "expected"),
    [
        (ANN, (), True),
        (STRANGER, (), True),
        (ANN, ("ann",), True),
        (BOB, ("ann",), False),
        (ANN, ("@staff",), True),
        (BOB, ("@staff",), False),
        (STRANGER, ("ann", "@staff"), False),
        (SUB_ANN, ("ann",), True),
        (0, ("ann",), True),
    ],
)
def test_who_orders_from_another_host_is_looked_up_here(
    etc: Path, monkeypatch: pytest.MonkeyPatch, uid: int, listed: tuple[str, ...], expected: bool
) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [STAFF] if user == "ann" else [])
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.getpwuid(0))
    agent = AgentConfig(users=listed, operators=("bob",))

    rights = rights_of_ordering_user(agent, uid, AccountFiles(etc))

    # Who administrates, the other host says.
    assert (rights.may_reserve, rights.may_administrate) == (
        expected or (uid == BOB and bool(listed)),
        False,
    )


def hang(*_: object) -> NoReturn:
    """As a call of the C library that waits for a server."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(3600)
    raise AssertionError


@pytest.mark.slow
def test_a_name_service_that_hangs_costs_its_deadline_and_no_rights(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", hang)
    found = known_caller(STRANGER, frozenset(), AgentConfig(), AccountFiles(etc))
    assert (found.uid, found.user) == (STRANGER, str(STRANGER))
    assert found.rights.may_reserve and not found.rights.may_administrate

    # What is listed by a name that it alone knows is not known.
    monkeypatch.setattr(pwd, "getpwnam", hang)
    listed = AgentConfig(users=("eve",), operators=("eve",))
    rights = known_caller(ANN, frozenset(), listed, AccountFiles(etc)).rights
    assert (rights.may_reserve, rights.may_administrate) == (False, False)
    assert "as far as the name service answered" in rights.why_not


def test_what_the_files_say_asks_no_name_service(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Questions] = []
    monkeypatch.setattr(name_service, "BoundedChild", asked.append)
    listed = AgentConfig(users=("ann", "7"), operators=("@staff", "bob"))

    found = known_caller(ANN, frozenset(), listed, AccountFiles(etc))

    assert (found.user, asked) == ("ann", [])


def test_the_name_service_answers_what_it_knows() -> None:
    answers = ask_name_service(
        Questions((0, 4_100_000_000), ("root", "no-such-user-1"), ("root", "no-such-1"), ("root",))
    )

    assert answers.is_complete
    assert (answers.names, answers.uids, answers.gids) == ({0: "root"}, {"root": 0}, {"root": 0})
    assert 0 in answers.groups_of["root"]


def test_a_name_service_that_dies_has_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert ask_name_service(Questions(users=("ann",))) is NO_ANSWER


def test_files_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    found = known_caller(STRANGER, frozenset(), AgentConfig(), AccountFiles(tmp_path))
    assert not found.rights.may_reserve
    (tmp_path / "passwd").mkdir()
    (tmp_path / "subuid").write_bytes(b"\xff\xfe:1:2\n" * 10)
    assert AccountFiles(tmp_path).uids == {}
    assert known_caller(1, frozenset(), AgentConfig(), AccountFiles(tmp_path)).uid == 1

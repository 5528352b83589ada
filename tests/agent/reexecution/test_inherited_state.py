"""What an agent hands on to the program that it becomes, and what that takes of it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from canhazgpu.agent.reexecution.inherited_state import (
    VARIABLE,
    InheritedChild,
    InheritedConnection,
    InheritedState,
    pass_on_state,
    take_inherited_state,
    undo_pass_on,
)
from canhazgpu.agent.reexecution.kept_sockets import KeptSockets

CHILD = InheritedChild(7, "hooks", "subordinate uids of root", "JobStart", 12.5)


@pytest.fixture
def opened() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def test_all_of_it_is_taken_once(opened: int) -> None:
    given = InheritedState(
        opened,
        {"/run/a.sock": opened},
        ("/run/a.sock",),
        (opened, opened),
        (InheritedConnection(opened, "people", b"{".hex()),),
        (CHILD,),
        {"served": {"Check": 3}},
    )
    environ: dict[str, str] = {}
    pass_on_state(given, environ)
    assert os.get_inheritable(opened)

    assert take_inherited_state(environ) == given
    assert not os.get_inheritable(opened)
    assert take_inherited_state(environ) == InheritedState()


def test_where_nothing_comes_of_it_nothing_is_inherited(opened: int) -> None:
    given = InheritedState(opened)
    undo_pass_on(given, pass_on_state(given, {}))
    assert not os.get_inheritable(opened)


def handed(content: bytes) -> InheritedState:
    file = os.memfd_create("test")
    os.write(file, content)
    return take_inherited_state({VARIABLE: f"{os.getpid()}:{file}"})


def test_another_releases_form_spoils_its_own_part_alone() -> None:
    child = {"pid": 7, "door": "hooks", "user": 0, "what": "JobStart", "ends_at": 1, "more": []}
    found = handed(
        json.dumps(
            {
                "lock": 5000,
                "sockets": {"/run/a.sock": 5001},
                "connections": [{"descriptor": "none"}],
                "children": [child],
                "history": 3,
                "later": {"thing": 1},
            }
        ).encode()
    )
    expected = InheritedChild(7, "hooks", 0, "JobStart", 1.0)
    assert found == InheritedState(5000, {"/run/a.sock": 5001}, children=(expected,))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"sockets": [1]}', b'{"lock": null}'])
def test_what_has_no_form_is_nothing(content: bytes) -> None:
    assert handed(content) == InheritedState()


@pytest.mark.parametrize("text", ["", "1:3", "x", "{pid}:", "{pid}:-1"])
def test_what_is_for_another_process_is_left_alone(text: str) -> None:
    assert take_inherited_state({VARIABLE: text.format(pid=os.getpid())}) == InheritedState()


def test_a_socket_whose_file_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as lost:
        lost.bind(str(path))
        lost.listen()
        path.unlink()
        kept = KeptSockets(InheritedState(sockets={str(path): os.dup(lost.fileno())}))
        with kept.listening(path, 0o600), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            kept.close_rest()
            assert path.is_socket()
    assert not path.exists()


def test_a_socket_that_this_release_does_not_want_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "old.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        KeptSockets(InheritedState(sockets={str(path): os.dup(old.fileno())})).close_rest()
    assert not path.exists()


def test_a_managers_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        theirs.listen()
        handed = InheritedState(sockets={str(path): os.dup(theirs.fileno())}, managed=(str(path),))
        kept = KeptSockets(handed)
        with kept.listening(path, 0o666) as made:
            assert kept.open == {str(path): made.fileno()}
            assert kept.managed == (str(path),)
        assert path.is_socket()

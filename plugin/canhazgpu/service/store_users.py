"""The Redis users of a cluster: those to add, and what is wrong with a server's."""

from __future__ import annotations

from dataclasses import field

from canhazgpu.frozen_dataclass import dataclass

ROLES = ("node", "reader", "order", "admin")


@dataclass(frozen=True, slots=True)
class StoreUsersRequest:
    """Which users: of these nodes (lists such as ``n[1-4]``), else of all nodes that are known.

    `logins` is a directory with a file for each user's password; passwords that are in it stay.
    `output` is the path of an ACL file to write.
    """

    nodes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ROLES
    logins: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class StoreUserLine:
    """A user, its line of an ACL file, and where its password is.

    `password` is empty where `login_file` has it.
    """

    name: str
    role: str
    node: str
    line: str
    login_file: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class StoreUsersAnswer:
    """The users to add. `unread` says why the ledger's own nodes are not among them, else ""."""

    users: tuple[StoreUserLine, ...]
    unread: str = ""


@dataclass(frozen=True, slots=True)
class StoreUserProblem:
    """What is wrong with a user of the server.

    `problem` is ``missing``, ``too little``, ``too much``, or ``unused`` for a user of a node that
    is not known, which is no error. `server` is empty where there is only one.
    """

    user: str
    problem: str
    detail: str
    server: str = ""

    @property
    def is_error(self) -> bool:
        """Whether a node could not work, or somebody may do more than is meant."""
        return self.problem != "unused"


@dataclass(frozen=True, slots=True)
class StoreCheckAnswer:
    """The users that were looked for, and what is wrong."""

    users: tuple[str, ...]
    problems: tuple[StoreUserProblem, ...]
    unread: str = ""

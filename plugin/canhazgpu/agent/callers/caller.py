"""The user at the other end of a connection, as a `Caller`: by the kernel and the node's accounts.

Nothing that the peer sends is looked at.
"""

from __future__ import annotations

from canhazgpu.agent.callers.account_files import AccountFiles
from canhazgpu.agent.callers.name_service import Answers, Questions, ask_name_service
from canhazgpu.agent.callers.rights import ROOT, Accounts, CallerFacts, counts_as, rights_of
from canhazgpu.agent.callers.subordinate_uids import owners_of
from canhazgpu.agent.peer import UnknownPeerError, peer_groups
from canhazgpu.agent.request import Request
from canhazgpu.config.schema import AgentConfig
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, Caller

GROUP_MARK = "@"


def caller_of(request: Request, agent: AgentConfig, files: AccountFiles | None = None) -> Caller:
    """Return the caller. It may fork a process, and waits for the name service `WAIT_S` at most."""
    files, peer = files or AccountFiles(), request.peer
    if peer.uid == ROOT:
        return Caller(ROOT, files.names.get(ROOT, "root"), ADMINISTRATORS_RIGHTS)
    try:
        groups = frozenset((peer.gid, *peer_groups(request.connection)))
    except UnknownPeerError:
        groups = frozenset((peer.gid,))
    return known_caller(peer.uid, groups, agent, files)


def known_caller(
    uid: int, groups: frozenset[int], agent: AgentConfig, files: AccountFiles
) -> Caller:
    """Return the caller with this uid of the kernel's, whose process is in these groups."""
    owners = owners_of(files.ranges, uid)
    answers = ask_name_service(_questions(uid, owners, agent, files))
    names = {**answers.names, **files.names}
    uids, gids = {**answers.uids, **files.uids}, {**answers.gids, **files.gids}
    owner_names = {one: name for name in owners if (one := _number(name, uids)) is not None}
    of_owners = (gid for name in owners for gid in answers.groups_of.get(name, ()))
    has_account = True if uid in names else (False if answers.is_complete else None)
    facts = CallerFacts(uid, has_account, frozenset(owner_names), groups.union(of_owners))
    rights = rights_of(
        facts,
        _accounts(agent.operators, uids, gids, answers),
        _accounts(agent.users, uids, gids, answers) if agent.users else None,
    )
    counted = counts_as(facts)
    if counted is None:
        return Caller(uid, names.get(uid, str(uid)), rights)
    return Caller(counted, names.get(counted) or owner_names.get(counted) or str(counted), rights)


def _questions(
    uid: int, owners: frozenset[str], agent: AgentConfig, files: AccountFiles
) -> Questions:
    """Return what the name service is to be asked, because the node's own files do not say it."""
    listed = (*agent.users, *agent.operators)
    groups = {one.removeprefix(GROUP_MARK) for one in listed if one.startswith(GROUP_MARK)}
    users = {one for one in listed if not one.startswith(GROUP_MARK)} | owners
    return Questions(
        () if uid in files.names else (uid,),
        tuple(sorted(name for name in users if _number(name, files.uids) is None)),
        tuple(sorted(name for name in groups if _number(name, files.gids) is None)),
        tuple(sorted(owners)) if groups else (),
    )


def _accounts(
    listed: tuple[str, ...], uids: dict[str, int], gids: dict[str, int], answers: Answers
) -> Accounts:
    users = [_number(one, uids) for one in listed if not one.startswith(GROUP_MARK)]
    groups = [
        _number(one.removeprefix(GROUP_MARK), gids) for one in listed if one.startswith(GROUP_MARK)
    ]
    return Accounts(
        frozenset(uid for uid in users if uid is not None),
        frozenset(gid for gid in groups if gid is not None),
        answers.is_complete or None not in (*users, *groups),
    )


def _number(name: str, known: dict[str, int]) -> int | None:
    """Return the number of a user or group, which may be named by its number."""
    if name.isascii() and name.isdecimal():
        return int(name)
    return known.get(name)

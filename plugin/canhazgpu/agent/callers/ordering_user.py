"""What a user who orders from another host may do on this node."""

from __future__ import annotations

from canhazgpu.agent.callers.account_files import AccountFiles
from canhazgpu.agent.callers.caller import GROUP_MARK, known_caller
from canhazgpu.agent.callers.name_service import Questions, ask_name_service
from canhazgpu.config.schema import AgentConfig
from canhazgpu.node.users import EVERYBODYS_RIGHTS, Rights


def rights_of_ordering_user(
    agent: AgentConfig, uid: int, files: AccountFiles | None = None
) -> Rights:
    """Return the user's rights by this node's `agent.users` and accounts.

    There is no process whose groups the kernel knows: the accounts' groups count. Whether somebody
    administrates is the host's word, and not told here. It may wait for the name service.
    """
    if not agent.users:
        return EVERYBODYS_RIGHTS
    files = files or AccountFiles()
    groups: frozenset[int] = frozenset()
    if any(one.startswith(GROUP_MARK) for one in agent.users):
        groups = _groups_by_account(uid, files)
    found = known_caller(uid, groups, agent, files).rights
    return Rights(may_reserve=found.may_reserve, why_not=found.why_not)


def _groups_by_account(uid: int, files: AccountFiles) -> frozenset[int]:
    name = files.names.get(uid) or ask_name_service(Questions(uids=(uid,))).names.get(uid)
    if name is None:
        return frozenset()
    return frozenset(ask_name_service(Questions(groups_of=(name,))).groups_of.get(name, ()))

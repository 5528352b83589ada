"""The Redis users of the cluster: those to add, and a check of those that a server has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.errors import ConfigError, InputError, StoreError
from canhazgpu.ledger.store.acl.files import (
    kept_password,
    login_file,
    new_password,
    refuse_foreign_content,
    write_acl_file,
)
from canhazgpu.ledger.store.acl.users import StoreUser, store_users
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, nodes_with_gpus
from canhazgpu.service.store_users import (
    StoreCheckAnswer,
    StoreUserLine,
    StoreUserProblem,
    StoreUsersAnswer,
    StoreUsersRequest,
)

if TYPE_CHECKING:
    from canhazgpu.config.schema import Config
    from canhazgpu.in_process.adapters import Adapters


def users_to_add(adapters: Adapters, request: StoreUsersRequest) -> StoreUsersAnswer:
    """See `NodeService.store_users`."""
    config = _config(adapters)
    nodes, unread = _nodes(adapters, config, request.nodes)
    users = [one for one in store_users(config.store.prefix, nodes) if one.role in request.roles]
    output = Path(request.output) if request.output else None
    if output is not None:
        # Before passwords are made.
        try:
            refuse_foreign_content(output, config.store.prefix)
        except OSError as exc:
            raise ConfigError(f"cannot read {output}: {exc.strerror}") from exc
    lines = tuple(_user_line(user, request.logins) for user in users)
    if output is not None:
        write_acl_file(output, [one.line for one in lines], config.store.prefix)
    return StoreUsersAnswer(lines, unread)


def check_users(adapters: Adapters, nodes: Sequence[str]) -> StoreCheckAnswer:
    """See `NodeService.check_store_users`."""
    from canhazgpu.ledger.store.acl import check  # noqa: PLC0415 - only the check asks a server

    config = _config(adapters)
    names, unread = _nodes(adapters, config, nodes)
    try:
        found = check.check_users(config.store, names)
    except StoreError as exc:
        if "denies this" not in str(exc):
            raise
        raise StoreError(
            f"{exc}; the check takes the administrator's login: --set store.login_file=FILE"
        ) from exc
    return StoreCheckAnswer(
        tuple(user.name for user in store_users(config.store.prefix, names)),
        tuple(StoreUserProblem(one.user, one.problem, one.detail, one.server) for one in found),
        unread,
    )


def _config(adapters: Adapters) -> Config:
    config = adapters.effective_config().config
    if config.store.url == EMBEDDED:
        raise InputError(
            'store.url is "embedded": the private server of one node has its users from canhazgpu'
        )
    return config


def _nodes(adapters: Adapters, config: Config, named: Sequence[str]) -> tuple[list[str], str]:
    """Return the named nodes, else all that are known; and why the ledger did not tell its own."""
    if named:
        return [name for text in named for name in expand_hostlist(text)], ""
    unread, nodes = "", list(_nodes_of_scheduler(adapters))
    try:
        nodes += [view.node for view in adapters.reader(config).read_nodes()]
    except StoreError as exc:
        unread = str(exc)
    if not nodes:
        how = "slurm.conf names no node with GPUs: name the nodes, as in --node gpu[01-16]"
        if unread:
            raise StoreError(f"{unread}; {how}")
        raise InputError(f"the ledger is empty; {how}")
    return sorted(set(nodes)), unread


def _nodes_of_scheduler(adapters: Adapters) -> Iterator[str]:
    try:
        yield from nodes_with_gpus(conf_path(adapters.environ))
    except (ConfigError, InputError):
        return


def _user_line(user: StoreUser, logins: str | None) -> StoreUserLine:
    password = kept_password(Path(logins), user.name) if logins else new_password()
    line = user.line(hashlib.sha256(password.encode()).hexdigest())
    if logins:
        path = str(login_file(Path(logins), user.name))
        return StoreUserLine(user.name, user.role, user.node, line, path)
    return StoreUserLine(user.name, user.role, user.node, line, "", password)

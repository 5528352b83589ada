"""`canhazgpu store acl`: the Redis users to add, and a check of those that there are."""

from __future__ import annotations

import json
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.errors import InputError, StoreError
from canhazgpu.service.store_users import (
    ROLES,
    StoreCheckAnswer,
    StoreUserLine,
    StoreUsersAnswer,
    StoreUsersRequest,
)

EXIT_PROBLEMS = 1


@click.command(
    epilog=exit_codes(
        StoreError,
        others={EXIT_PROBLEMS: "--check found users that are wrong; or any other error"},
    )
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODES",
    help="Only these nodes, as n1 or gpu[01-16]; else those of slurm.conf and of the ledger.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Only users of this kind; may be given again.",
)
@click.option(
    "--logins",
    metavar="DIR",
    help="Keep each user's password in a file here; those that are there stay.",
)
@click.option(
    "--output",
    metavar="FILE",
    help="Write an ACL file, never over one that has other users.",
)
@click.option(
    "--commands",
    is_flag=True,
    help="Print what redis-cli takes, not an ACL file.",
)
@click.option(
    "--check", is_flag=True, help="Compare the users of the running server; change nothing."
)
@json_option
@click.pass_context
def acl(  # noqa: PLR0913 - an option each
    context: click.Context,
    *,
    nodes: tuple[str, ...],
    roles: tuple[str, ...],
    logins: str | None,
    output: str | None,
    commands: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Print the Redis users to add: one for each node, a reader, one for orders, an administrator.

    A node's user writes that node's keys, reads all, and adds names to the list of nodes.
    That for orders, of login hosts, reads all and gives nodes orders, which they carry out.
    Passwords are random. With --logins they are in files, else they are printed once, on
    standard error; the lines have their digests alone. Other users of the server stay as
    they are. Needs Redis 7 or later, or Valkey.

    --check asks the running server with the login in force, the administrator's, which
    users are missing, or have too much or too little.

    \b
    Examples:
      canhazgpu store acl --logins ./logins --commands | redis-cli -h head
      canhazgpu store acl --node gpu17 --role node --logins ./logins
      canhazgpu store acl --logins ./logins --output ./users.acl
      canhazgpu --set store.login_file=/root/logins/canhazgpu-admin.login store acl --check
    """  # noqa: D301 - click reads the character: keep these lines
    app: App = context.obj
    if check and (roles or logins or output or commands):
        raise InputError("--check takes --node and --json alone: it prints and writes no users")
    with sanitized_errors():
        if check:
            found = app.service().check_store_users(nodes)
            _print_check(found, as_json=as_json)
            if any(one.is_error for one in found.problems):
                context.exit(EXIT_PROBLEMS)
            return
        request = StoreUsersRequest(nodes, roles or ROLES, logins, output)
        answer = app.service().store_users(request)
    _print_users(answer, output, commands=commands, as_json=as_json)


def _print_users(
    answer: StoreUsersAnswer, output: str | None, *, commands: bool, as_json: bool
) -> None:
    if answer.unread:
        print_sanitized(f"canhazgpu: nodes of slurm.conf alone: {answer.unread}", err=True)
    if as_json:
        click.echo(json.dumps({"users": [_user_to_dict(one) for one in answer.users]}, indent=2))
        return
    for one in answer.users:
        if output is None:
            click.echo(f"ACL SETUSER {one.line.removeprefix('user ')}" if commands else one.line)
    for one in answer.users:
        where = one.password or f"in {one.login_file}"
        click.echo(f"password of {one.name}: {where}", err=True)
    if output is not None:
        click.echo(f"wrote {output}", err=True)


def _user_to_dict(user: StoreUserLine) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "node": user.node or None,
        "line": user.line,
        "login_file": user.login_file or None,
        "password": user.password or None,
    }


def _print_check(found: StoreCheckAnswer, *, as_json: bool) -> None:
    if found.unread:
        print_sanitized(f"canhazgpu: nodes of slurm.conf alone: {found.unread}", err=True)
    if as_json:
        problems = [
            {
                "user": one.user,
                "problem": one.problem,
                "detail": one.detail,
                "server": one.server or None,
            }
            for one in found.problems
        ]
        click.echo(json.dumps({"users": list(found.users), "problems": problems}, indent=2))
        return
    for one in found.problems:
        server = f" on {one.server}" if one.server else ""
        print_sanitized(f"{one.problem}: {one.user}{server}: {one.detail}")
    wrong = {one.user for one in found.problems if one.is_error}
    good = sum(name not in wrong for name in found.users)
    click.echo(f"{good} of {len(found.users)} users are as they should be")

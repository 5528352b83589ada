"""The files of `store acl`: passwords, one for each user, and an ACL file."""

from __future__ import annotations

import os
from pathlib import Path

from canhazgpu.errors import ConfigError, InputError
from canhazgpu.ledger.store.acl.users import is_users_name, parse_acl
from canhazgpu.ledger.store.login import read_login
from canhazgpu.node.state_files import read_regular_file, write_atomically

PRIVATE_DIRECTORY_MODE = 0o700
PASSWORD_BYTES = 24


def new_password() -> str:
    """Return a new random password."""
    from secrets import token_hex  # noqa: PLC0415 - slow to import

    return token_hex(PASSWORD_BYTES)


def login_file(directory: Path, user: str) -> Path:
    """Return the path of the user's file."""
    return directory / f"{user}.login"


def kept_password(directory: Path, user: str) -> str:
    """Return the password in the user's file; write the file if there is none.

    Only its owner can read it. Raises `ConfigError`.
    """
    path = login_file(directory, user)
    try:
        directory.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
        try:
            known, password = read_login(str(path))
        except FileNotFoundError:
            password = new_password()
            _create(path, f"{user}:{password}\n")
            return password
    except OSError as exc:
        raise ConfigError(f"cannot keep the password in {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: {exc}; move it away for a new password") from exc
    if known != user:
        raise ConfigError(f"{path} is of the user {known!r}; move it away for a new password")
    return password


def _create(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.write(text)


def write_acl_file(path: Path, lines: list[str], prefix: str) -> None:
    """Write an ACL file that holds these users alone.

    Raises `InputError` for a file with anything else: Redis would forget its other users.
    """
    try:
        refuse_foreign_content(path, prefix)
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode(), 0o640)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc


def refuse_foreign_content(path: Path, prefix: str) -> None:
    """Raise `InputError` if the file has other users than ours. Raises `OSError`."""
    try:
        text = read_regular_file(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    lines = [line for line in text.splitlines() if line.strip()]
    known = parse_acl(lines)
    others = sorted(name for name in known if not is_users_name(name, prefix))
    if len(known) < len(lines) and not others:
        others = ["lines that are no users"]
    if others:
        raise InputError(
            f"{path} has {', '.join(others)[:200]}: it is not written over. Add the users to the"
            " running server (--commands prints what redis-cli takes), or choose another file"
        )

"""The login with which the store is opened: that of ``store.login_file``, else that of the URL.

The file holds ``USER:PASSWORD`` in one line. Root's hooks read it; a user who may not read it uses
the login of ``store.url``. So one configuration file serves both.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, parse_store_url

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig

MAX_BYTES = 4096


def address_with_login(store: StoreConfig) -> StoreUrl:
    """Return the store's address; raises `ConfigError` for the URL, `StoreError` for the file.

    A file that is missing or wrong is an error for root alone, whose hooks go on without the store.
    """
    address = parse_store_url(store.url)
    if not store.login_file:
        return address
    try:
        user, password = read_login(store.login_file)
    except (FileNotFoundError, PermissionError) as exc:
        if os.geteuid() != 0:
            return address
        raise _unusable(store, exc.strerror or "") from exc
    except OSError as exc:
        raise _unusable(store, exc.strerror or str(exc)) from exc
    except ValueError as exc:
        raise _unusable(store, str(exc)) from exc
    return replace(address, username=user, password=password)


def why_no_login(store: StoreConfig) -> str:
    """Say why this user has no login of the store, "" for one that has, or may need none."""
    if store.url == EMBEDDED or not store.login_file:
        return ""
    if os.access(store.login_file, os.R_OK, effective_ids=True):
        return ""
    # That of the URL is everybody's, beside that of root's hooks.
    has_password = parse_store_url(store.url).password is not None
    return "" if has_password else f"this user cannot read {store.login_file}"


def read_login(path: str) -> tuple[str, str]:
    """Return user and password; raises `OSError`, and `ValueError` for another content."""
    # Without O_NONBLOCK, a FIFO in the file's place would be waited for.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        text = stream.read(MAX_BYTES).decode("utf-8", "replace")
    user, colon, password = text.strip().partition(":")
    if not (user and colon and password) or any(char.isspace() for char in user + password):
        raise ValueError("it does not hold one line USER:PASSWORD")
    return user, password


def _unusable(store: StoreConfig, why: str) -> StoreError:
    return StoreError(
        f"store.login_file {store.login_file} cannot be used: {why}",
        next_step="'canhazgpu store acl --logins DIR' writes such files",
    )

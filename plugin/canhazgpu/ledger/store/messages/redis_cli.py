"""The command with which an administrator tries the store; pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from canhazgpu.errors import ConfigError
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, parse_store_url

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig


def redis_cli_command(store: StoreConfig, *command: str) -> str:
    """Return the redis-cli command that asks the store (``ping``); "" for an embedded one.

    It has no password: a server that wants one answers that it does.
    """
    if store.url == EMBEDDED:
        return ""
    try:
        url = parse_store_url(store.url)
    except ConfigError:
        return shlex.join(["redis-cli", "-u", "STORE_URL", *(command or ("ping",))])
    return shlex.join(["redis-cli", *_address(url), *_command(url, command or ("ping",))])


def _address(url: StoreUrl) -> list[str]:
    if url.scheme == "unix":
        return ["-s", url.path]
    host, port = url.hosts[0]
    tls = ["--tls"] if url.scheme == "rediss" else []
    return [*tls, "-h", host, "-p", str(port)]


def _command(url: StoreUrl, command: tuple[str, ...]) -> list[str]:
    if url.scheme == "redis+sentinel":
        return ["sentinel", "get-master-addr-by-name", url.service]
    return list(command)

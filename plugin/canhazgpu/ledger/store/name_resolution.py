"""Resolve host names within a time limit: no time-out and no signal ends a resolver's wait."""

from __future__ import annotations

import ipaddress
import socket
import threading

from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.url import EMBEDDED, parse_store_url


def resolve_hosts(url: str, timeout_s: float) -> None:
    """Return once the resolver has answered for all hosts of the store.

    Raises `StoreError` if it does not answer in time, and `ConfigError` for a malformed URL. A
    thread that still waits then does nothing else and ends with the process.
    """
    hosts = [] if url == EMBEDDED else [host for host, _ in parse_store_url(url).hosts]
    names = [host for host in hosts if not _is_address(host)]
    waiting = [threading.Thread(target=_resolve, args=(name,), daemon=True) for name in names]
    for one in waiting:
        one.start()
    for name, one in zip(names, waiting, strict=True):
        one.join(timeout_s / len(names))
        if one.is_alive():
            raise StoreError(
                f"no answer from the resolver for {name} within {timeout_s:g} s",
                next_step=f"'getent hosts {name}' tries it; an address in store.url needs none",
            )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _resolve(name: str) -> None:
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        # Connecting fails with the same error, and reports it.
        return

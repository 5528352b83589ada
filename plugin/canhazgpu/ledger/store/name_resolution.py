"""Bounds the one wait that neither a socket's time-out nor a signal ends: for a host's address."""

from __future__ import annotations

import ipaddress
import socket
import threading

from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.url import EMBEDDED, parse_store_url


def resolve_hosts(url: str, timeout_s: float) -> None:
    """Return once the addresses of the store's hosts are known, or are known not to be.

    Raises `StoreError` where the resolver gives no answer in time, `ConfigError` for a malformed
    URL. The thread that still waits then does nothing else and ends with the process.
    """
    hosts = [] if url == EMBEDDED else [host for host, _ in parse_store_url(url).hosts]
    names = [host for host in hosts if not _is_address(host)]
    waiting = [threading.Thread(target=_resolve, args=(name,), daemon=True) for name in names]
    for one in waiting:
        one.start()
    for name, one in zip(names, waiting, strict=True):
        one.join(timeout_s / len(names))
        if one.is_alive():
            raise StoreError(f"no answer from the resolver for {name} within {timeout_s:g} s")


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
        # Whoever connects is told the same, in words.
        return

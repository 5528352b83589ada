"""With which login hooks open the store, and who else has it."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import CanhazgpuError
from canhazgpu.ledger.store.acl.users import NODE, READER, user_name
from canhazgpu.ledger.store.login import address_with_login
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, parse_store_url


def has_secret_password(store: StoreConfig) -> bool:
    """Return whether store.url has a password, unless it is the reader's, which users may know."""
    try:
        address = None if store.url == EMBEDDED else parse_store_url(store.url)
    except CanhazgpuError:
        return False
    reader = user_name(store.prefix, READER)
    return address is not None and bool(address.password) and address.username != reader


def exposed_login_file(store: StoreConfig) -> str:
    """Return the path of a login file that everybody can read, else "".

    A group may: its users reserve GPUs by hand.
    """
    try:
        mode = Path(store.login_file).stat().st_mode if store.login_file else 0
    except OSError:
        return ""
    return store.login_file if mode & stat.S_IROTH else ""


def shared_login(store: StoreConfig, node: str) -> str:
    """Return what is wrong where other nodes and users may change this node's records, else "".

    A store that only this host reaches has one node, whose records they are. Without a name of the
    node, any node's login is right.
    """
    if store.url == EMBEDDED:
        return ""
    try:
        address = address_with_login(store)
    except CanhazgpuError:
        return ""
    own = user_name(store.prefix, NODE, node) if node else f"{store.prefix}-{NODE}-"
    user = address.username or "default"
    if _is_local(address) or (user == own if node else user.startswith(own)):
        return ""
    if not address.password:
        return "hooks open the store without a password, so that whoever reaches it may change it"
    return f"hooks open the store as {user!r}, which may change the records of every node"


def _is_local(address: StoreUrl) -> bool:
    return address.scheme == "unix" or all(_is_loopback(host) for host, _ in address.hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

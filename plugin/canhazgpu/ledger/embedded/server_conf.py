"""The embedded server's configuration and its writer's password."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from canhazgpu.ledger.embedded.directory import WRITER, ServerDirectory
from canhazgpu.ledger.unbounded_reads import UNBOUNDED_READS

MEMORY_LIMIT_MB = 320
"""Enough for the ledger of one node, and its clients. A full server refuses writes; it evicts
nothing."""

# Everybody may connect, and what a client has sent or not yet read counts as the server's memory:
# half a request of 300 MB had it refuse writes, and fifty clients together had it take 4 GB.
REQUEST_LIMIT_MB = 4
"""Longest request. A batch of the journal, the longest of ours, has 200 entries of about 1 KB."""
ANSWERS_LIMIT_MB = 32
"""Answers that wait to be read; a page of a history has 1000 events. Then the client is cut off."""
CLIENTS_LIMIT_MB = 64
"""All clients together. Beyond it the server cuts off those that take most."""
_LIMIT_OF_ALL_CLIENTS_SINCE = (7, 0)

# Permissions are given by command category: a server does not start with a subcommand in its ACLs
# that its release does not know. @connection has what a client needs to connect (AUTH, HELLO, …).
_LEDGER_KEYS = "~*:{*}:* ~*:nodes ~*:index:*"
"""The keys of the ledger with any ``store.prefix``, which may change while the server runs."""
_READER_RIGHTS = (
    f"{_LEDGER_KEYS} -@all +@read +@connection +@transaction +time -@admin -@dangerous"
    f" {UNBOUNDED_READS}"
)
_WRITER_RIGHTS = f"{_LEDGER_KEYS} &canhazgpu:* +@all -@admin -@dangerous"

_TEMPLATE = """\
# Written by canhazgpu with each start of the server; changes are lost.
port 0
unixsocket {socket}
unixsocketperm 777
dir {directory}
pidfile {pid_file}
logfile {log}
daemonize yes
supervised no
databases 1

# Each change is on the disk before it is answered, so a killed server loses nothing, and a ledger
# has few changes. Once a second would not do: a server whose disk is slow puts off even
# writing.
appendonly yes
appendfsync always
aof-load-truncated yes
auto-aof-rewrite-min-size 4mb
save ""

maxmemory {memory_mb}mb
maxmemory-policy noeviction
client-query-buffer-limit {request_mb}mb
proto-max-bulk-len {request_mb}mb
client-output-buffer-limit normal {answers_mb}mb {answers_mb}mb 0
{all_clients}
user default reset on nopass {reader_rights}
user {writer} reset on #{digest} {writer_rights}
"""


def config_text(directory: ServerDirectory, secret: str, version: tuple[int, int]) -> str:
    """Return the configuration file for a release of the server.

    It contains a digest of the secret, not the secret. A server does not start with a setting that
    its release does not know.
    """
    all_clients = f"maxmemory-clients {CLIENTS_LIMIT_MB}mb\n"
    return _TEMPLATE.format(
        socket=_quoted(directory.starting_socket),
        directory=_quoted(directory.path),
        pid_file=_quoted(directory.pid_file),
        log=_quoted(directory.log),
        memory_mb=MEMORY_LIMIT_MB,
        request_mb=REQUEST_LIMIT_MB,
        answers_mb=ANSWERS_LIMIT_MB,
        all_clients=all_clients if version >= _LIMIT_OF_ALL_CLIENTS_SINCE else "",
        reader_rights=_READER_RIGHTS,
        writer=WRITER,
        writer_rights=_WRITER_RIGHTS,
        digest=hashlib.sha256(secret.encode()).hexdigest(),
    )


def write_config(directory: ServerDirectory, secret: str, version: tuple[int, int]) -> None:
    """Write the configuration file; only the owner can read it."""
    _write_private(directory.config, config_text(directory, secret, version))


def prepare_secret(directory: ServerDirectory) -> str:
    """Return the writer's password; create one if there is none."""
    if directory.secret.exists():
        return directory.secret.read_text("utf-8").strip()
    secret = os.urandom(32).hex()
    _write_private(directory.secret, f"{secret}\n")
    return secret


def _write_private(path: Path, text: str) -> None:
    """Replace a file atomically; at no time can anybody but the owner read it."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
    temporary.rename(path)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

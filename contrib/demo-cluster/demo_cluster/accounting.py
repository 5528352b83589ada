"""Slurm's accounting: slurmdbd, and the cluster's own MariaDB, which no network reaches."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from demo_cluster.daemons import Daemons, log_tail
from demo_cluster.errors import StartError
from demo_cluster.host.processes import wait_until
from demo_cluster.layout import Layout

DATABASE, STORAGE_DAEMON = "mariadbd", "slurmdbd"
INSTALL_TIMEOUT_S = 120


def start_accounting(daemons: Daemons, layout: Layout, port: int, timeout_s: float) -> None:
    """Start both daemons, and return when slurmdbd listens; munged must run."""
    data, database_socket = layout.state / "database", layout.run / "database.socket"
    _install_database(data, layout)
    daemons.start(
        DATABASE,
        [
            "/usr/sbin/mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
            f"--socket={database_socket}", "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
        ],
    )  # fmt: skip
    _wait(daemons, layout, DATABASE, database_socket.exists, timeout_s)
    conf = layout.etc / "slurmdbd.conf"
    conf.unlink(missing_ok=True)
    with os.fdopen(os.open(conf, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(_slurmdbd_conf(layout, port))
    start_slurmdbd(daemons, layout, port, timeout_s)


def start_slurmdbd(daemons: Daemons, layout: Layout, port: int, timeout_s: float) -> None:
    """Start slurmdbd over the database that runs, and return when it listens."""
    variables = {"MYSQL_UNIX_PORT": str(layout.run / "database.socket")}
    daemons.start(STORAGE_DAEMON, ["/usr/sbin/slurmdbd", "-D"], variables)
    _wait(daemons, layout, STORAGE_DAEMON, lambda: _listens(port), timeout_s)


def accounting_lines(layout: Layout, port: int) -> str:
    """Return slurm.conf's lines for a cluster with accounting."""
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={layout.munge_socket}
"""


def _install_database(data: Path, layout: Layout) -> None:
    command = [
        "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root",
        "--auth-root-authentication-method=normal", "--skip-test-db",
    ]  # fmt: skip
    with layout.console(DATABASE).open("ab") as console:
        subprocess.run(
            command, stdout=console, stderr=console, timeout=INSTALL_TIMEOUT_S, check=True
        )


def _slurmdbd_conf(layout: Layout, port: int) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost={socket.gethostname()}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={layout.log(STORAGE_DAEMON)}
PidFile={layout.pid_file(STORAGE_DAEMON)}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
"""


def _wait(
    daemons: Daemons, layout: Layout, name: str, ready: Callable[[], bool], timeout_s: float
) -> None:
    def is_ready() -> bool:
        daemons.require_running(name)
        return ready()

    if not wait_until(is_ready, timeout_s):
        raise StartError(f"{name} does not serve\n{log_tail(layout, name)}")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True

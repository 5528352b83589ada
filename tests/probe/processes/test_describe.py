"""What is told of real processes: of other users, hidden ones, and those that lie."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from process_details import WAIT_S, describe_process

from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.node.users import user_name
from canhazgpu.probe.processes import describe, proc_files, ps
from canhazgpu.probe.processes.cgroup_job import no_job_of_cgroup
from canhazgpu.probe.processes.describe import MAX_ANCESTORS, with_process_details
from canhazgpu.probe.processes.proc_files import ProcessEntry, display_name, read_process

LLAMA = "meta-llama/Llama-2-7b-chat-hf"
GONE = 4194303
WAIT = "import sys; print(flush=True); sys.stdin.read()"
"""A program that says that it runs, and runs until its standard input ends."""

NOBODY = {"user": "nobody", "group": 65534, "extra_groups": []}
"""All of a user's: a process with a group of root's is root's to whoever hides processes."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and users take root")


@contextlib.contextmanager
def running(*arguments: str, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun, by what it prints first."""
    with subprocess.Popen(  # type: ignore[call-overload]
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
    ) as process:
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def describe_all(pids: Iterable[int], wait_s: float = WAIT_S) -> dict[int, GpuProcess]:
    return describe.describe_processes(pids, no_job_of_cgroup, wait_s)


def unknown(pid: int) -> GpuProcess:
    return GpuProcess(pid, None, None, None, None)


@needs_root
def test_all_that_is_told_of_a_process() -> None:
    nobody = pwd.getpwnam("nobody")
    seen: list[str] = []

    def job_of(cgroup: str) -> str:
        seen.append(cgroup)
        return "slurm:7"

    with running("/usr/bin/python3", "-c", WAIT, "--model", LLAMA, user="nobody") as one:
        told = describe_process(one.pid, 500, job_of)
        assert seen == [Path(f"/proc/{one.pid}/cgroup").read_text()]

    assert told.pid == one.pid
    assert (told.uid, told.user, told.name) == (nobody.pw_uid, "nobody", "python3")
    assert (told.memory_mb, told.model, told.job) == (500, LLAMA, "slurm:7")
    assert told.ancestors[:2] == (os.getpid(), os.getppid())
    assert told.ancestors[-1] == 1


def test_a_worker_has_the_model_of_its_parents() -> None:
    # Given a server whose worker, two processes below, has a title in place of a command line
    worker = f"exec -a VLLM::Worker_TP0 {sys.executable} -c '{WAIT}'"
    start = f"import subprocess; subprocess.run(['bash', '-c', {worker!r}])"
    with running(sys.executable, "-c", start, "serve", "--model", LLAMA) as server:
        (shell,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        told = describe_process(int(shell), None)

    assert told.model == LLAMA
    assert told.ancestors[:2] == (server.pid, os.getpid())


def test_parents_are_read_once_for_all_children(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(pid: int, *, owned: bool) -> ProcessEntry | None:
        read.append(pid)
        return read_process(pid, owned=owned)

    monkeypatch.setattr(describe, "read_process", counted)
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(running(sys.executable, "-c", WAIT)).pid for _ in range(8)]
        told = describe_all(pids * 3)

    assert told.keys() == set(pids)
    assert len(read) == len(set(read))
    assert os.getpid() in read


def test_one_look_describes_the_processes_of_all_gpus() -> None:
    def gpu(index: int, *found: tuple[int, int | None]) -> GpuReading:
        held = tuple(replace(unknown(pid), memory_mb=memory) for pid, memory in found)
        return GpuReading(index, f"GPU-{index}", index, "H100", 0, 80000, held)

    me, parent = os.getpid(), os.getppid()
    gpus = with_process_details(
        [gpu(0, (me, 5), (GONE, 7)), gpu(1), gpu(2, (me, None), (parent, 1))],
        no_job_of_cgroup,
        WAIT_S,
    )

    assert [one.index for one in gpus] == [0, 1, 2]
    assert [(one.pid, one.memory_mb) for one in gpus[0].processes] == [(me, 5), (GONE, 7)]
    assert gpus[0].processes[0] == replace(describe_process(me, None), memory_mb=5)
    assert gpus[0].processes[1] == replace(unknown(GONE), memory_mb=7)
    assert gpus[1].processes == ()
    assert [one.memory_mb for one in gpus[2].processes] == [None, 1]


@pytest.mark.parametrize("pid", [GONE, 2**22 + 1, 2**32 - 1, 2**64, 0, -1])
def test_pids_of_no_process(pid: int) -> None:
    assert describe_process(pid, 3) == replace(unknown(pid), memory_mb=3)


def test_a_process_that_has_ended_but_is_not_collected_keeps_its_owner_and_parents() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    told = describe_process(pid, 1)
    os.waitpid(pid, 0)

    assert (told.uid, told.ancestors[0]) == (os.getuid(), os.getpid())
    assert told.name is not None


@pytest.mark.may_skip
def test_a_kernel_thread() -> None:
    if not Path("/proc/2").exists() or Path("/proc/2/cmdline").read_bytes():
        pytest.skip("this /proc shows no kernel threads")
    told = describe_process(2, None)
    assert (told.uid, told.name, told.model) == (0, "kthreadd", None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\nUid:\t0\t0\t0\t0", "a?Uid:?0?0?0?0"),
        (b"a\x0bUid:\t0\t0", "a?Uid:?0?0"),
        (b"x) R 1 1 1 1 1", "x) R 1 1 1 1 1"),
        (b"((x", "((x"),
        (b"\x1b[31mred", "?[31mred"),
        (b"PPid:\t1", "PPid:?1"),
        (b"\xff\xfe!", "\ufffd\ufffd!"),
        ("caf\u00e9\u202e".encode(), "caf\u00e9?"),
        (b"two words", "two words"),
        (b"a\\nb", "a\\nb"),
        (b"", None),
    ],
)
def test_names_that_lie(name: bytes, shown: str | None) -> None:
    call_itself = f"open('/proc/self/comm', 'wb').write({name!r}) if {name!r} else "
    call_itself += "__import__('ctypes').CDLL(None).prctl(15, b'', 0, 0, 0)"
    with running(sys.executable, "-c", f"{call_itself}; {WAIT}") as one:
        told = describe_process(one.pid, None)

    assert (told.name, told.uid) == (shown, os.getuid())
    assert told.ancestors[0] == os.getpid()


@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("python3", ["/usr/bin/python3", "train.py"], "python3"),
        ("jupyter-lab", ["/usr/bin/python3", "/usr/bin/jupyter-lab"], "jupyter-lab"),
        ("text-generation", ["/opt/bin/text-generation-launcher"], "text-generation-launcher"),
        ("my-very-long-sc", ["/usr/bin/python3", "/x/my-very-long-script"], "my-very-long-script"),
        ("VLLM::EngineCor", ["VLLM::EngineCore"], "VLLM::EngineCore"),
        ("pt_main_thread", ["/opt/conda/bin/python3.10", "train.py"], "python3.10"),
        ("pt_main_thread", [], "pt_main_thread"),
        ("exactly15letter", ["exactly15letter"], "exactly15letter"),
        ("exactly15letter", ["other"], "exactly15letter"),
        ("serve --token=h", ["serve --token=hf_AbCdEfGhIjKlMnOp"], "serve --token=h"),
        ("hf_AbCdEfGhIjKl", ["hf_AbCdEfGhIjKlMnOpQrStUvWx"], "hf_AbCdEfGhIjKl"),
        ("aaaaaaaaaaaaaaa", ["a" * 100], "aaaaaaaaaaaaaaa"),
        ("python3", [], "python3"),
    ],
)
def test_the_name_that_users_know(name: str, arguments: list[str], known: str) -> None:
    assert display_name(name, arguments) == known


def test_a_command_line_is_not_read_to_its_end() -> None:
    long = "x" * 40000
    with running(sys.executable, "-c", WAIT, "--model", LLAMA, long) as one:
        assert describe_process(one.pid, None).model == LLAMA
    # The last argument that is read may have been cut, so that it is none.
    cut = "y" * (
        proc_files.MAX_COMMAND_LINE_BYTES - len(f"{sys.executable}\0-c\0{WAIT}\0\0--model\0gpt")
    )
    with running(sys.executable, "-c", WAIT, cut, "--model", "gpt2-xl") as one:
        assert describe_process(one.pid, None).model is None


def entry(parent: int, started: int) -> ProcessEntry:
    return ProcessEntry("x", parent, started)


def test_a_pid_that_is_somebody_elses_now_is_no_parent() -> None:
    assert describe._ancestors(5, {5: entry(4, 10), 4: entry(3, 11), 3: entry(0, 1)}) == ()
    assert describe._ancestors(5, {5: entry(4, 10), 4: entry(3, 10), 3: entry(0, 1)}) == (4, 3)


def test_a_hidden_parent_is_known_by_its_pid_alone() -> None:
    assert describe._ancestors(5, {5: entry(4, 10), 4: None}) == (4,)


def test_parents_in_a_circle_end() -> None:
    entries: dict[int, ProcessEntry | None] = {5: entry(4, 1), 4: entry(3, 1), 3: entry(5, 1)}
    assert describe._ancestors(5, entries) == (4, 3)
    assert describe._ancestors(5, {5: entry(5, 1)}) == ()


def test_the_line_of_parents_is_bounded() -> None:
    entries: dict[int, ProcessEntry | None] = {pid: entry(pid - 1, 1) for pid in range(1, 500)}
    assert describe._ancestors(499, entries) == tuple(range(498, 498 - MAX_ANCESTORS, -1))


def test_processes_that_come_and_go_while_they_are_read() -> None:
    stop = threading.Event()
    pids: list[int] = [GONE]

    def churn() -> None:
        while not stop.is_set():
            with subprocess.Popen(["/bin/true"]) as one:
                pids.append(one.pid)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(200):
            for told in describe_all(pids[-3:]).values():
                assert told.uid in (None, os.getuid())
    finally:
        stop.set()
        churning.join()


def open_files() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def test_nothing_stays_open() -> None:
    describe_all([os.getpid(), GONE])
    before = open_files()
    for _ in range(20):
        describe_all([os.getpid(), os.getppid(), 1, GONE])
    assert open_files() == before


def test_a_command_line_that_never_comes_costs_only_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a command line whose reading hangs, as where its owner's memory is locked
    ours, theirs = os.pipe()
    original = proc_files._open_command_line

    def hanging(directory: int) -> int | None:
        stuck = Path(f"/proc/self/fd/{directory}").readlink().name == str(one.pid)
        return os.dup(ours) if stuck else original(directory)

    monkeypatch.setattr(proc_files, "_open_command_line", hanging)
    with (
        running(sys.executable, "-c", WAIT, "--model", LLAMA) as one,
        running(sys.executable, "-c", WAIT, "--model", LLAMA) as two,
    ):
        told = describe_all([one.pid, two.pid], wait_s=0.3)
        os.close(theirs)  # lets the thread that reads go
        os.close(ours)

    assert (told[one.pid].uid, told[one.pid].model) == (os.getuid(), None)
    assert told[one.pid].user == user_name(os.getuid())
    assert told[two.pid].model == LLAMA


def test_users_that_the_directory_does_not_tell_in_time_are_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()
    real = pwd.getpwuid

    def slow(uid: int) -> pwd.struct_passwd:
        if uid == os.getuid():
            never.wait(30)
        return real(uid)

    monkeypatch.setattr(pwd, "getpwuid", slow)
    try:
        told = describe_all([os.getpid()], wait_s=0.1)
    finally:
        never.set()
    assert told[os.getpid()].user == str(os.getuid())


def test_users_without_a_name_are_digits() -> None:
    assert user_name(4000000000) == "4000000000"
    assert user_name(2**40) == str(2**40)
    assert user_name(None) is None


def test_without_proc_one_call_of_ps_tells_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given no /proc, and a ps that writes down its calls
    calls = tmp_path / "calls"
    program = tmp_path / "ps"
    program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\nexec /bin/ps "$@"\n')
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(proc_files, "PROC", tmp_path / "proc")
    monkeypatch.setattr(ps, "PS", str(program))

    with running(sys.executable, "-c", WAIT) as one:
        told = describe_all([one.pid, os.getpid(), GONE, -5])

    name = Path(sys.executable).resolve().name
    assert told[one.pid].uid == os.getuid()
    assert told[one.pid].user == user_name(os.getuid())
    assert (told[one.pid].name or "")[:6] == name[:6] == "python"
    assert told[GONE] == unknown(GONE)
    assert told[-5] == unknown(-5)
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo nonsense; echo 1 2; echo a b c", "printf '\\377\\n'", None],
)
def test_a_ps_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None
) -> None:
    program = tmp_path / "ps"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(ps, "PS", str(program))
    assert ps.owners_by_ps([1, 2]) == {}


def test_a_ps_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ps"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(ps, "PS", str(program))
    monkeypatch.setattr(ps, "PS_TIMEOUT_S", 0.2)
    assert ps.owners_by_ps([1]) == {}


TELL = """
import dataclasses, json, sys
sys.path[:0] = {path!r}
from canhazgpu.probe.processes.describe import describe_processes
told = describe_processes([int(one) for one in {pids!r}], lambda _: None, 1.0)
print(json.dumps([dataclasses.asdict(one) for one in told.values()]))
"""


@pytest.fixture
def importable(reachable: Path) -> Path:
    """A copy of the code that every user can read."""
    code = reachable / "code" / "canhazgpu"
    if not code.exists():
        for name in ("probe", "gpu", "node"):
            shutil.copytree(Path(describe.__file__).parents[2] / name, code / name)
        for name in ("errors.py", "frozen_dataclass.py"):
            shutil.copy(Path(describe.__file__).parents[2] / name, code)
    return code.parent


@pytest.fixture
def tell_in(importable: Path) -> Callable[..., list[dict[str, object]]]:
    """Runs `describe_all` in a mount namespace of its own, after these commands."""

    def tell(
        *pids: int, setup: str, unshare: str = "-m", user: str = ""
    ) -> list[dict[str, object]]:
        code = TELL.format(path=[str(importable)], pids=[str(pid) for pid in pids])
        become = f"setpriv --reuid={user} --regid=65534 --clear-groups" if user else ""
        script = f'{setup}\nexec {become} "$@"'
        inside = ["sh", "-ec", script, "sh", "/usr/bin/python3", "-c", code]
        done = subprocess.run(
            ["unshare", *unshare.split(), *inside],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        told: list[dict[str, object]] = json.loads(done.stdout)
        return told

    return tell


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("hidepid", [1, 2])
def test_hidden_processes_are_unknown_to_users_and_their_own_are_not(
    tell_in: Callable[..., list[dict[str, object]]], hidepid: int
) -> None:
    with (
        running("/usr/bin/python3", "-c", WAIT, "--model", LLAMA, user="daemon") as others,
        running("/usr/bin/python3", "-c", WAIT, "--model", LLAMA, **NOBODY) as own,
    ):
        hidden, shown = tell_in(
            others.pid,
            own.pid,
            setup=f"mount -t proc -o hidepid={hidepid} proc /proc",
            user="nobody",
        )

    assert hidden == as_json(unknown(others.pid))
    assert (shown["user"], shown["model"], shown["name"]) == ("nobody", LLAMA, "python3")
    # Its parent, which is root's, is hidden, but for its pid.
    assert shown["ancestors"] == [os.getpid()]


def as_json(process: GpuProcess) -> object:
    return json.loads(json.dumps(asdict(process)))


@pytest.mark.slow
@needs_root
def test_a_pid_of_another_namespace_is_unknown(
    tell_in: Callable[..., list[dict[str, object]]],
) -> None:
    with running("/usr/bin/python3", "-c", WAIT) as outside:
        (told,) = tell_in(outside.pid, setup="", unshare="--pid --fork --mount-proc")
    assert told == as_json(unknown(outside.pid))


@needs_root
def test_without_proc_on_linux_not_even_ps_can_tell(
    tell_in: Callable[..., list[dict[str, object]]],
) -> None:
    (told,) = tell_in(1, setup="umount -l /proc")
    assert told == as_json(unknown(1))


SLOW_NSS = r"""
#include <nss.h>
#include <pwd.h>
#include <unistd.h>
enum nss_status _nss_slow_getpwuid_r(
    uid_t uid, struct passwd *found, char *buffer, size_t size, int *error) {
    (void)uid; (void)found; (void)buffer; (void)size; (void)error;
    for (;;) pause();
}
"""


@pytest.mark.slow
@needs_root
@pytest.mark.skipif(shutil.which("cc") is None, reason="the directory that hangs is in C")
def test_a_user_directory_that_hangs(
    tell_in: Callable[..., list[dict[str, object]]], tmp_path: Path
) -> None:
    # Given a directory server that never answers, asked after the local users
    source = tmp_path / "slow.c"
    source.write_text(SLOW_NSS)
    library = tmp_path / "libnss_slow.so.2"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    (tmp_path / "nsswitch.conf").write_text("passwd: files slow\n")
    with (
        running("/usr/bin/python3", "-c", WAIT, user=3999999999) as foreign,
        running("/usr/bin/python3", "-c", WAIT, user="daemon") as local,
    ):
        # If processes of a local user and of one of the server's are read
        first, second = tell_in(
            foreign.pid,
            local.pid,
            setup=f"mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf\n"
            f"export LD_LIBRARY_PATH={tmp_path}",
        )
    # I expect both, the one without his name
    assert (first["uid"], first["user"], first["name"]) == (3999999999, "3999999999", "python3")
    assert second["user"] == "daemon"

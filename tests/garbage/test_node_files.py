"""Whatever stands in a node's own files, its hooks' variables or its configuration.

Job 12 holds two GPUs, and a person a third: nobody else is granted those, no hook ends non-zero,
and no traceback is seen.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from crashes.crash_node import SHOW, SQUEUE
from crashes.node_image import NodeImage, store_client
from forking_python import ForkingPython
from garbage.judgement import Judged, fuzzed
from garbage.private_machine import private_python
from garbage.values import CONTENTS, TEXTS, VALUES, damaged
from hook_jobs import owners_in_book
from hosts.hook_node import HOOK_MODULES, NODE, HookNode, make_hook_node, write_config
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import run, waiter
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.ledger.journal_entries import PROLOG, JournalEntry
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.ledger.local.queue.queue_file import QueueFile
from canhazgpu.ledger.local.queue.queued_request import QueuedRequest
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.notice import Notice
from canhazgpu.node.identity import boot_id
from canhazgpu.node.processes import this_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TIMEOUT_S = 120.0
JOB = "job:c1:12:0"
COMMANDS = (("status",), ("status", "--json"), ("explain", "12"), ("queue",), ("validate",))
RUN_COMMAND = "import sys\nfrom canhazgpu.cli.main import main\nsys.argv = {argv!r}\nmain()\n"


@dataclass
class GarbageNode:
    """The node, as it is with something in every file; `put_back` makes it so again."""

    node: HookNode
    python: ForkingPython
    image: NodeImage
    held: dict[str, str]
    directories: frozenset[Path] = frozenset()

    @property
    def places(self) -> list[Path]:
        """The node's own files."""
        roots = (self.node.files / "run", self.node.files / "lib")
        return sorted(path for root in roots for path in root.rglob("*") if path.is_file())

    def put_back(self) -> None:
        for path in (self.node.files / "run", self.node.files / "lib"):
            remove_garbage(path, self.directories)
        client = store_client(self.node.server.url)
        self.image.put_back(client)
        client.close()
        write_config(self.node.files, self.node.config)
        (self.node.files / "slurmd.log").write_text("")

    def hook(self, judged: Judged, name: str, **variables: str) -> None:
        """Run a hook, which may not fail."""
        module = next(one for one, what in HOOK_MODULES.items() if what == name)
        environ = self.node.environ(**variables)
        done = self.python.run(["-m", module], environ, TIMEOUT_S, directory=self.node.files)
        log = self.node.files / "slurmd.log"
        judged.hook(name, done, log.read_text(errors="replace"))
        log.write_text("")

    def command(self, judged: Judged, arguments: Sequence[str], **variables: str) -> None:
        program = RUN_COMMAND.format(argv=["canhazgpu", *arguments])
        environ = self.node.environ(**variables)
        done = self.python.run(["-c", program], environ, TIMEOUT_S, directory=self.node.files)
        judged.program(" ".join(arguments), done)

    def judge_grants(self, judged: Judged, what: str) -> None:
        """Nobody else has a GPU of those that were held, by the book or by the store."""
        for source, owners in (("store", self.node.owners_by_gpu()), ("book", self.in_book())):
            taken = {
                gpu: owner
                for gpu, owner in owners.items()
                if owner.startswith(("job:c1:13:", "job:c1:14:")) and gpu in self.held
            }
            judged.grants(f"{what}, by the {source} {taken}", taken, self.held)

    def hooks_of_two_jobs(
        self, judged: Judged, judge_grants: Callable[[str], None], meanwhile: Callable[[], None]
    ) -> None:
        """Run the hooks of jobs 13 and 14 and a health check, and `meanwhile` before their ends."""
        for job, gpus in (("13", "1,3"), ("14", "2")):
            self.hook(judged, "prolog", SLURM_JOB_ID=job, SLURM_JOB_GPUS=gpus)
            judge_grants(f"prolog of {job}")
        self.hook(judged, "health_check")
        judge_grants("health check")
        meanwhile()
        self.hook(judged, "epilog", SLURM_JOB_ID="13", SLURM_JOB_GPUS="1,3")
        self.hook(judged, "epilog")

    def in_book(self) -> dict[str, str]:
        book = self.node.files / "run" / "book.json"
        if book.is_symlink() or not book.is_file():
            return {}  # a pipe, or a link to what never ends
        try:
            return owners_in_book(self.node)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            return {}


def remove_garbage(directory: Path, directories: Collection[Path]) -> None:
    """Remove what is no directory, sockets and pipes too, and directories but for these."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if path not in directories:
                path.rmdir()
        else:
            path.unlink()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GarbageNode]:
    directory = tmp_path_factory.mktemp("garbage")
    driver = install_driver(directory / "driver")
    state = fake_nvml.FakeState(directory / "nvml")
    with (
        make_hook_node(directory, driver, "slurm", state) as node,
        private_python(directory) as python,
    ):
        (directory / "jobs").write_text("12\n13\n14\n")
        node.slurm(squeue=SQUEUE.format(jobs=directory / "jobs"), show=SHOW)
        node.reserve(2)
        judged = Judged("without garbage")
        made = GarbageNode(node, python, NodeImage(directory, (), {}), {})
        made.hook(judged, "prolog")
        made.hook(judged, "health_check")
        fill(node)
        made.held = node.owners_by_gpu()
        assert sorted(made.held.values()) == [JOB, JOB, "manual:1"]
        client = store_client(node.server.url)
        directories = (directory / "run", directory / "lib")
        made.image = NodeImage.take(directory / "images", directories, client)
        client.close()
        made.directories = frozenset(
            path for one in directories for path in one.rglob("*") if path.is_dir()
        )
        for arguments in COMMANDS:
            made.command(judged, arguments)
        judged.assert_none_broke()
        yield made


def fill(node: HookNode) -> None:
    """Have something in every file that there may be."""
    place, boot = node.files / "run", boot_id()
    book = BookFile(place, NODE, boot, JobRecords(place), print)
    with book.open() as transaction:
        transaction.apply_and_journal(JournalEntry(PROLOG, transaction.now, JOB, reason="x"))
    QueueFile(place, NODE, boot, print).join(QueuedRequest(waiter(run(7))))
    Notices(place).add(0, Notice("GPU 1", 1.0, "root", "x"))
    claim = replace(run(8), boot_id=boot, processes=(this_process(),))
    RunFiles(place).write(RunRecord(claim, "m", (), 0, (), 1.0))
    (place / "not-drained").write_text("x")
    (place / "store-outage").write_text('{"since": 1.0, "reason": "x", "uptime_s": 1.0}')


def into(path: Path, kind: str, content: bytes) -> None:
    """Put something in the place of the file."""
    mode = path.stat().st_mode
    path.unlink()
    if kind == "content":
        path.write_bytes(content)
        path.chmod(mode & 0o777)
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # A socket's path has to be short, and these are not: it is named by its open directory.
        directory = os.open(path.parent, os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{directory}/s")
        os.close(directory)
        path.with_name("s").rename(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("/nowhere/x")


KINDS = ("content",) * 6 + ("gone", "directory", "pipe", "socket", "link", "dangling")


def test_any_state_file(here: GarbageNode, figures: Callable[[str], None]) -> None:
    judged = Judged("a node's own files")

    def judge_grants(what: str) -> None:
        here.judge_grants(judged, what)

    def run_commands() -> None:
        for arguments in COMMANDS:
            here.command(judged, arguments)

    @fuzzed
    @given(st.data())
    def holds(data: Any) -> None:
        here.put_back()
        for path in data.draw(st.lists(st.sampled_from(here.places), min_size=1, max_size=3)):
            if not path.is_file() or path.is_symlink():
                continue
            kind = data.draw(st.sampled_from(KINDS))
            known = path.read_bytes()
            into(path, kind, data.draw(damaged(known)) if kind == "content" else b"")
        judged.tried += 1
        here.hooks_of_two_jobs(judged, judge_grants, run_commands)
        judged.assert_none_broke()

    try:
        holds()
    finally:
        here.put_back()
        figures(str(judged))


NAMES = (
    "SLURM_JOB_ID",
    "SLURM_JOB_UID",
    "SLURM_JOB_USER",
    "SLURM_JOB_GPUS",
    "SLURM_JOB_RESTART_COUNT",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_END_TIME",
    "SLURM_JOB_SLUID",
    "SLURMD_NODENAME",
    "SLURM_CLUSTER_NAME",
    "SLURM_CONF",
    "SLURM_SCRIPT_CONTEXT",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_HET_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_COMMENT",
    "CUDA_VISIBLE_DEVICES",
    "HOOK_LOST_S",
    "HOOK_EXIT_CODE",
    "HOOK_STARTED_S",
    "CANHAZGPU_CONFIG",
)
WORDS = st.one_of(
    TEXTS,
    st.integers().map(str),
    st.sampled_from(
        ["", "-1", "0", "1,3", "0-3", "0-99999999999", "../../x", "/dev/zero", "nan", "9" * 400]
    ),
).map(lambda one: one.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))


@st.composite
def variables(draw: st.DrawFn) -> dict[str, str]:
    """A job's variables, other than those of job 12, with some that are something else."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    known = {"SLURM_JOB_ID": "13", "SLURM_JOB_GPUS": "1,2"}
    found = known | {name: draw(WORDS).replace("\0", "") for name in names}
    found["SLURM_JOB_ID"] = "13" if "12" in found["SLURM_JOB_ID"] else found["SLURM_JOB_ID"]
    return found


def test_any_variables_of_a_hook(here: GarbageNode, figures: Callable[[str], None]) -> None:
    judged = Judged("hooks' variables")

    @fuzzed
    @given(variables())
    def holds(found: dict[str, str]) -> None:
        here.put_back()
        judged.tried += 1
        for name in ("prolog", "health_check", "epilog"):
            here.hook(judged, name, **found)
            now = here.node.owners_by_gpu()
            lost = [gpu for gpu, owner in here.held.items() if now.get(gpu) != owner]
            judged.grants(f"{name} with {found}: {now}", lost, here.held)
        judged.assert_none_broke()

    try:
        holds()
    finally:
        here.put_back()
        figures(str(judged))


PATHS = ("store.url", "validation.nvml_library", "slurm.bin_dir", "node.state_dir")
SETTINGS = (
    *PATHS,
    "store.timeout_s",
    "store.on_failure",
    "store.prefix",
    "store.retry_after_s",
    "validation.memory_threshold_mb",
    "validation.scan_timeout_s",
    "validation.ignore_processes",
    "slurm.assignment",
    "slurm.on_conflict",
    "node.marker_dir",
    "node.name",
    "agent.operators",
    "agent.users",
    "run.max_gpus",
    "history.keep_days",
)


@st.composite
def configurations(draw: st.DrawFn, known: dict[str, dict[str, Any]]) -> bytes:
    """The configuration with some keys that are something else, or damaged as bytes."""
    names = draw(st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=3, unique=True))
    values = {f"{section}.{key}": one for section in known for key, one in known[section].items()}
    values |= {name: draw(VALUES) for name in names}
    text = "\n".join(f"{name} = {toml(one)}" for name, one in values.items())
    content = text.encode("utf-8", "replace")
    return content if draw(st.integers(0, 2)) else draw(st.one_of(damaged(content), CONTENTS))


def toml(value: object) -> str:
    """The value as TOML, or as something like it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        plain = "".join(f"\\u{ord(one):04x}" if ord(one) < 32 else one for one in value)
        return '"' + plain.replace('"', "'") + '"'
    return str(value)


def test_any_configuration(here: GarbageNode, figures: Callable[[str], None]) -> None:
    """It may name another store, or none: what is granted by it is not judged here."""
    judged = Judged("configuration files")
    path = here.node.files / "config.toml"

    @fuzzed
    @given(configurations(here.node.config))
    def holds(content: bytes) -> None:
        here.put_back()
        path.write_bytes(content)
        judged.tried += 1
        for name in ("prolog", "health_check", "epilog"):
            here.hook(judged, name, SLURM_JOB_ID="13", SLURM_JOB_GPUS="1,3")
        for arguments in COMMANDS[:2]:
            here.command(judged, arguments)
        judged.assert_none_broke()

    try:
        holds()
    finally:
        here.put_back()
        figures(str(judged))

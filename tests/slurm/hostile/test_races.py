"""A user who exchanges directories, links and pipes all the time where root reads and writes.

By default root goes to no directory that others can write in. A site can name such directories:
those of the daemons that read the node's metrics, and whatever root gives to a command.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, run_without_importing
from polling import poll_until

from demo_cluster import ClusterSpec, new_directory

SWAP = Path(__file__).with_name("swap.py")
METRICS = "canhazgpu.prom"
TIMES = 40
SHOW = 'echo "got $CUDA_VISIBLE_DEVICES"'
# As hooks and the agent do it, again and again, while the links change.
WRITES = """
import contextlib, sys
from pathlib import Path
from canhazgpu.ledger.local.dcgm_mapping import _write
from canhazgpu.untrusted_directory import untrusted_directory
place, written = Path(sys.argv[2]), 0
for number in range(600):
    with contextlib.suppress(OSError):
        _write(place / "spot", {"0": f"{number}\\n", "1": "" if number % 2 else "7\\n"})
        written += 1
    with contextlib.suppress(OSError), untrusted_directory(place / "spot") as directory:
        directory.replace("canhazgpu.prom", b"x", 0o644)
print(written)
"""


@pytest.fixture(scope="module")
def place(people: tuple[str, str]) -> Iterator[Path]:
    """A directory of the first user's."""
    made = new_directory()
    account = pwd.getpwnam(people[0])
    os.chown(made, account.pw_uid, account.pw_gid)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def cluster(make_cluster: Any, place: Path) -> GpuCluster:
    spot = place / "spot"
    metrics = {"textfile": str(spot / METRICS), "dcgm_mapping_dir": str(spot)}
    return make_cluster(ClusterSpec(nodes=1, gpus_per_node=2), way="agent", metrics=metrics)


@pytest.fixture
def victim(cluster: GpuCluster) -> Iterator[Path]:
    """Files of root's, of all names that root writes at the place; hard links can be made to them.

    The kernel lets users make such links to what they may write (proc(5), protected_hardlinks).
    """
    made = cluster.root / "victim"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o755)
    assert command(cluster, "hooks", "render", "--output", str(made)).returncode == 0
    for name in ("0", "1", METRICS, "secret", "server.conf", "server.log"):
        (made / name).write_text("root's")
    for one in list(made.iterdir()):
        (made / f".{one.name}.new").write_text("root's")
    for one in made.iterdir():
        one.chmod(0o666)
    yield made
    shutil.rmtree(made)


def command(cluster: GpuCluster, *words: str, config: Path | None = None) -> Any:
    options = ["--config", str(config or cluster.config_file)]
    return run_without_importing(cluster.venv, [*options, *words], cluster.slurm.env())


def state_of(directory: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        known = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(known.st_mode) else b""
        found[str(path)] = (known.st_mode, known.st_uid, known.st_gid, known.st_mtime_ns, content)
    return found


def is_new_file(path: Path, known: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode) and not path.samefile(known)


@contextlib.contextmanager
def swapping(cluster: GpuCluster, user: str, place: Path, victim: Path) -> Iterator[None]:
    """Have the user exchange things inside the block."""
    script = cluster.root / "swap.py"
    shutil.copy(SWAP, script)
    script.chmod(0o644)
    words = ["/usr/bin/python3", "-I", str(script), str(place), str(victim)]
    process = cluster.slurm.popen(words, user=user)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "swaps\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_root_changes_nothing_but_what_is_in_the_users_own_directory(
    cluster: GpuCluster, people: tuple[str, str], place: Path, victim: Path
) -> None:
    alice, bob = people
    assert cluster.agents is not None
    agent = cluster.agents.status("n1")["pid"]
    before = state_of(victim)
    with swapping(cluster, alice, place, victim):
        jobs = [
            cluster.slurm.submit(SHOW, "--gres=gpu:1", f"--chdir={place}", "-o/dev/null", user=bob)
            for _ in range(3)
        ]
        written = int(cluster.run_python(WRITES, str(place)))
        rendered = [
            command(cluster, "hooks", "render", "--output", str(place / "spot" / "out"))
            for _ in range(TIMES)
        ]
        for job in jobs:
            assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
        shown = command(cluster, "status", "--json")
        checked = command(cluster, "hooks", "check")

    assert state_of(victim) == before
    # Sometimes it was a directory of the user's, and sometimes it was none.
    assert 0 < written < 600
    ends = {done.returncode for done in rendered}
    assert ends <= {0, 2} and 2 in ends
    assert json.loads(shown.stdout)["nodes"]
    for done in (*rendered, shown, checked):
        assert "Traceback" not in done.stdout + done.stderr
    assert cluster.agents.status("n1")["pid"] == agent
    assert cluster.agents.status("n1")["faults"] == []
    poll_until(lambda: cluster.held() == {}, "nobody to hold a GPU")


def test_a_store_in_a_users_directory_is_neither_made_nor_used(
    cluster: GpuCluster, people: tuple[str, str], place: Path, victim: Path
) -> None:
    """Root would start the server there, and it would read what the user puts there."""
    config = cluster.root / "elsewhere.toml"
    text = cluster.config_file.read_text().replace(
        str(cluster.root / "store"), str(place / "spot" / "out" / "store")
    )
    config.write_text(text)
    before = state_of(victim)
    with swapping(cluster, people[0], place, victim):
        ended = [command(cluster, "admin", "nodes", config=config) for _ in range(TIMES // 4)]
    assert state_of(victim) == before
    assert 0 not in {done.returncode for done in ended}
    # The user, too, puts links and other things of that name there.
    assert [one for one in place.rglob("secret") if is_new_file(one, victim / "secret")] == []
    for done in ended:
        assert "/spot/out/store" in done.stderr and "Traceback" not in done.stderr

"""`canhazgpu status` on a node whose store is away: its scan, and what its hooks published."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from hook_jobs import job_variables
from ledger_samples import observation

from canhazgpu.ledger.store.node_queries import NODES_PER_PAGE

PROGRAM = ("-c", "from canhazgpu.cli.main import main; main()")

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("node", ["slurm"], indirect=True)]


def status(node: Any, *arguments: str, command: str = "status") -> Any:
    environ = {**node.environ(), "PYTHONUNBUFFERED": "1"}
    return node.python(*PROGRAM, command, *arguments, environ=environ)


def keep_from_delivering(node: Any) -> None:
    """Have root's commands tell the store nothing, as a user's do: that would end the outage."""
    (node.files / "run" / "journal").unlink(missing_ok=True)


def rows(done: Any) -> list[str]:
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_what_jobs_hold_is_shown_and_nothing_is_available(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.server.kill()
    node.run("prolog", **job_variables(2, "1"))

    done = status(node)

    assert done.returncode == 4
    heading, _, _, *gpus = rows(done)
    assert heading.startswith("n1 (not all reservations are known; its hooks found the")
    assert re.search(r"store away \d+s ago: cannot reach the store at", heading)
    held = [one for one in gpus if "in use ann" in one]
    assert [("job 1" in one, "job 2" in one) for one in held] == [(False, True), (True, False)]
    assert sum(one.endswith("unknown reservation not known 45MB used") for one in gpus) == 2
    assert done.stderr.startswith("Error: cannot reach the store at")
    assert "shown is n1 alone, without the reservations that only the store has" in done.stderr


def test_json_says_what_is_missing(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.server.kill()
    node.run("epilog", **job_variables(9, "3"))

    done = status(node, "--json", "--me")
    shown = json.loads(status(node, "--json").stdout)

    assert done.returncode == 4
    assert json.loads(done.stdout)["taken"] == []
    assert shown["error"].startswith("cannot reach the store at")
    (seen,) = shown["nodes"]
    assert (seen["reservations_known"], seen["live"]) == (False, True)
    assert seen["hooks_outage"]["reason"].startswith("cannot reach the store at")
    assert sorted(one["state"] for one in seen["gpus"]) == ["reserved", *["unknown"] * 3]
    assert all(one["memory_used_mb"] == 45 for one in seen["gpus"])


def test_the_store_is_back_and_the_hooks_do_not_know_it_yet(node: Any) -> None:
    node.server.kill()
    node.run("prolog", **job_variables(1, "0"))
    node.server.start()
    published = json.loads((node.files / "run" / "published.json").read_text())
    keep_from_delivering(node)

    done = status(node)

    assert (done.returncode, done.stderr) == (0, "")
    assert published["store_away_reason"].startswith("cannot reach the store at")
    outage = r"n1 \(its hooks found the store away \d+s ago: cannot reach the store"
    assert re.match(outage, rows(done)[0])
    assert "not known" not in done.stdout

    node.forget_outage()
    node.run("epilog", **job_variables(1, "0"))
    assert rows(status(node))[0].startswith("GPU STATUS")


def test_a_node_that_may_not_decide_alone_tells_its_outage_too(node: Any) -> None:
    node.configure(store={"on_failure": "fail"})
    node.server.kill()
    node.slurm(requeue="")
    node.run("prolog", **job_variables(1, "0"))
    node.server.start()
    keep_from_delivering(node)
    assert "its hooks found the store away" in status(node).stdout
    assert "event=store-lost" not in node.log()

    node.run("prolog", **job_variables(2, "0"))
    assert "its hooks found the store away" not in status(node).stdout


@pytest.mark.parametrize("content", [None, "garbage"])
def test_without_anything_published_the_scan_is_left(node: Any, content: str | None) -> None:
    node.server.kill()
    if content is not None:
        (node.files / "run").mkdir()
        (node.files / "run" / "published.json").write_text(content)

    done = status(node)

    assert done.returncode == 4
    assert rows(done)[0] == "n1 (not all reservations are known)"
    assert done.stdout.count("reservation not known") == 4


def test_a_lost_book_leaves_what_the_store_and_the_scan_tell(node: Any) -> None:
    node.run("prolog")
    (node.files / "run" / "published.json").unlink()

    done = status(node)

    assert done.returncode == 6
    assert "published.json is missing" in done.stderr
    assert "canhazgpu-healthcheck" in done.stderr
    assert rows(done)[0] == "n1 (not all reservations are known)"
    assert done.stdout.count("job 12") == 2
    assert done.stdout.count("reservation not known") == 2
    assert "available" not in done.stdout


def test_other_nodes_need_the_store(node: Any) -> None:
    node.server.kill()

    other, both = status(node, "--node", "n2"), status(node, "--node", "n1", "--node", "n2")

    assert (other.returncode, other.stdout) == (4, "")
    assert both.returncode == 4
    assert rows(both)[0].startswith("n1 (")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_ends_with_the_status_of_what_it_showed_last(node: Any, as_json: bool) -> None:
    node.server.kill()
    watch = subprocess.Popen(
        [sys.executable, *PROGRAM, "status", "--watch", "0.2", *(["--json"] if as_json else [])],
        env={**node.environ(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    first = watch.stdout.readline()
    if not as_json:
        first = watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=60)

    if as_json:
        assert json.loads(first)["error"].startswith("cannot reach the store at")
    else:
        assert first.startswith("Error: cannot reach the store at")
    assert watch.returncode == 4
    assert err.startswith("Error: cannot reach the store at")


@pytest.mark.parametrize("before", ["a", "z"])
def test_a_lost_book_is_told_in_the_json_of_many_nodes(node: Any, before: str) -> None:
    """On whichever page this node is."""
    node.run("prolog")
    (node.files / "run" / "published.json").unlink()
    for number in range(NODES_PER_PAGE):
        node.ledger.publish_scan(observation(f"{before}{number}", 1))

    done = status(node, "--json")

    assert done.returncode == 6
    shown = json.loads(done.stdout)
    assert "published.json is missing" in shown["error"]
    assert len(shown["nodes"]) == NODES_PER_PAGE + 1

"""`canhazgpu report` over a ledger in memory."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner, Result
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.main import cli
from canhazgpu.errors import StoreError
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation

HOUR = 3600.0
EVIL = "\x1b[2J=evil\nn1"


class Ledger(FakeLedger):
    """Has a history beside its views."""

    def __init__(
        self, *views: NodeView, history: dict[str, list[Event]], error: Exception | None = None
    ) -> None:
        super().__init__(*views, error=error)
        self._history = history
        self.asked: list[tuple[str, float]] = []

    def history(self, node: str, since: float) -> list[Event]:
        self.events.append("history")
        self.asked.append((node, since))
        return [one for one in self._history.get(node, []) if one.at >= since]


def released(user: str, hours_ago: float, held_h: float, owner: str, gpu: str = "GPU-0") -> Event:
    at = NOW - hours_ago * HOUR
    claim = Claim(owner, owner.partition(":")[0], user)
    return Event("1-0", at, "release", gpu, claim, at - held_h * HOUR, idle_s=held_h * HOUR / 2)


HELD = Reservation("GPU-1", Claim("job:c:1:0", "slurm", "alice", job_id="1"), NOW - 10 * HOUR)
N1 = NodeView("n1", NOW, None, None, {"GPU-1": HELD})
N2 = NodeView("n2", NOW, None, None)
HISTORY = {
    "n1": [released("bob", 200, 4, "run:1"), released("alice", 30, 20, "run:2")],
    "n2": [released("bob", 5, 10, "manual:1")],
}


def run(ledger: FakeLedger, *args: str) -> Result:
    return CliRunner().invoke(cli, ["report", *args], obj=app(ledger, FakeProbe()))


def test_the_last_days_of_all_nodes() -> None:
    ledger = Ledger(N1, N2, history=HISTORY)

    result = run(ledger)

    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:4] == ["alice", "30.0", "75%", "10.0"]
    assert lines[2][:4] == ["bob", "10.0", "25%", "5.0"]
    assert "1 run, 1 slurm" in result.stdout
    since = (NOW // DAY_S - 7) * DAY_S
    assert ledger.asked == [("n1", since), ("n2", since)]


def test_the_history_is_read_after_what_is_held() -> None:
    ledger = Ledger(N1, N2, history=HISTORY)
    run(ledger)
    assert ledger.events == ["look", "history", "history"]


def test_days_nodes_and_users() -> None:
    ledger = Ledger(N1, N2, history=HISTORY)

    result = run(ledger, "--days", "30", "--node", "n1", "--user", "bob", "--json")

    form = json.loads(result.stdout)
    assert [one["user"] for one in form["users"]] == ["bob"]
    assert [one["node"] for one in form["nodes"]] == ["n1"]
    assert form["total"]["gpu_hours"] == 4
    assert form["total"]["share"] == round(4 / 34, 4)
    assert (form["since"], form["until"]) == ("2023-10-15T00:00:00Z", "2023-11-14T22:13:20Z")


@pytest.mark.parametrize("more", [[], ["--wasted"], ["--user", "nobody"]])
def test_the_document_is_indented_and_ends_its_line(more: list[str]) -> None:
    result = run(Ledger(N1, N2, history=HISTORY), "--json", *more)
    assert result.stdout == json.dumps(json.loads(result.stdout), indent=2) + "\n"


def test_csv_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(Ledger(N1, N2, history=HISTORY), "--days", "30", "--csv")
    assert len(whole.stdout.splitlines()) == 4
    monkeypatch.setattr("canhazgpu.cli.commands.report.CSV_ROWS_PER_PIECE", 2)
    assert run(Ledger(N1, N2, history=HISTORY), "--days", "30", "--csv").stdout == whole.stdout


def test_csv_is_read_back_and_no_name_is_obeyed() -> None:
    ledger = Ledger(N2, history={"n2": [released(EVIL, 5, 10, "run:1")]})

    result = run(ledger, "--csv")

    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["user"] == "'=eviln1"
    assert (row["node"], row["gpu_hours"], row["run"]) == ("n2", "10.0000", "1")


def test_hostile_names_stay_on_their_line() -> None:
    ledger = Ledger(N2, history={"n2": [released(EVIL, 5, 10, EVIL)]})

    result = run(ledger)

    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert sum(line.startswith("n1") for line in result.stdout.splitlines()) == 0


def test_nothing_was_reserved() -> None:
    result = run(Ledger(N2, history={}), "--days", "3")
    assert (result.exit_code, result.stdout) == (0, "No reservations in the last 3 days.\n")
    form = json.loads(run(Ledger(history={}), "--json").stdout)
    assert (form["users"], form["nodes"]) == ([], [])


def test_a_node_that_nobody_knows_is_refused() -> None:
    result = run(Ledger(N1, history=HISTORY), "--node", "nX")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'nX'" in result.stderr


def test_a_node_that_is_only_in_the_history_is_known() -> None:
    assert run(Ledger(history=HISTORY), "--node", "n2").exit_code == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--days", "0"], "1<=x<=3650"),
        (["--days", "week"], "'week' is not a valid integer"),
        (["--json", "--csv"], "give one of them"),
    ],
)
def test_bad_options_say_what_is_accepted(args: list[str], told: str) -> None:
    result = run(Ledger(N1, history=HISTORY), *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_more_days_than_the_history_has_are_said() -> None:
    result = run(Ledger(N1, history=HISTORY), "--days", "91", "--csv")
    assert result.stderr == "The history is kept for 90 days (store.history_days).\n"
    assert result.stdout.startswith("user,node,")


def test_without_the_ledger_nothing_is_shown() -> None:
    result = run(Ledger(history={}, error=StoreError("cannot reach the store")))
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("Error: cannot reach the store")


def test_help_has_examples() -> None:
    result = run(Ledger(history={}), "--help")
    assert "canhazgpu report --days 30 --user alice" in result.stdout

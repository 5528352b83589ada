"""What the threat model says is shown by a test that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "admin" / "security.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.slow
def test_each_test_that_the_threat_model_names_exists() -> None:
    named = TEST.findall(DOCUMENT.read_text("utf-8"))
    assert len(named) > 15
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_each_attempt_names_its_test_or_says_that_there_is_none() -> None:
    tables = DOCUMENT.read_text("utf-8").split("| tries |")[1:]
    rows = [line for table in tables for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 15
    shown = [row.rstrip(" |").rpartition(" | ")[2] for row in rows]
    assert [one for one in shown if not TEST.search(one) and one != "-"] == []


def names_in(path: str) -> set[str]:
    tree = (
        ast.parse((REPOSITORY / path).read_text("utf-8")) if (REPOSITORY / path).exists() else None
    )
    functions = ast.walk(tree) if tree else ()
    return {one.name for one in functions if isinstance(one, ast.FunctionDef)}

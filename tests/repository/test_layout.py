"""The folders stay small, and the pages that show them name what is there."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
TOP_FOLDERS = ("plugin", "prolog", "epilog", "templates", "cli", "tests", "contrib")
MAX_MODULES = 16
SOURCES = {".py", ".lua", ".c"}
PAGES = ("docs/architecture.md", "docs/request-paths.md", "CONTRIBUTING.md")
SCREEN_LINES, SCREEN_COLUMNS = 50, 120
PATH = re.compile(r"`((?:plugin|cli|prolog|epilog|templates|docs|tests|contrib)/[^\s`]*)`")


def test_no_folder_holds_more_modules_than_one_sees_at_a_glance() -> None:
    files = [path for top in TOP_FOLDERS for path in (REPOSITORY / top).rglob("*")]
    modules = [path for path in files if path.suffix in SOURCES]
    assert {path.suffix for path in modules} == SOURCES
    counts = Counter((str(path.parent.relative_to(REPOSITORY)), path.suffix) for path in modules)
    assert len(counts) > 20
    assert {where: n for where, n in counts.items() if n > MAX_MODULES} == {}


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "docs/request-paths.md", "CONTRIBUTING.md"]
)
def test_every_path_on_a_page_about_the_layout_exists(page: str) -> None:
    paths = PATH.findall((REPOSITORY / page).read_text("utf-8"))
    assert len(paths) > 20
    there = [path for path in paths if "NAME" not in path]
    assert [path for path in there if not (REPOSITORY / path).exists()] == []


def test_the_architecture_takes_two_screens() -> None:
    lines = ARCHITECTURE.read_text("utf-8").splitlines()
    shown = [max(1, math.ceil(len(line) / SCREEN_COLUMNS)) for line in lines]
    assert sum(shown) <= 2 * SCREEN_LINES


def test_the_picture_names_every_folder_of_the_core() -> None:
    picture = ARCHITECTURE.read_text("utf-8").partition("```mermaid")[2].partition("```")[0]
    named = set(re.findall(r"([a-z_]+)/", picture))
    core = REPOSITORY / "plugin" / "canhazgpu"
    places = [one for one in (*core.iterdir(), *(core / "ledger").iterdir()) if one.is_dir()]
    folders = {one.name for one in places if any(one.rglob("*.py"))}
    assert folders - named == set()
    for name in named - {"cli", "prolog", "epilog", "templates", "plugin", "canhazgpu"}:
        assert any(core.rglob(f"{name}/")), name

"""The manual pages: up to date, found and shown by the real `man`, and safe from any text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from command_tree import all_commands
from hypothesis import given
from hypothesis import strategies as st
from plugins.ci_skips import Require

import help_text
import manual_pages
import roff

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "contrib" / "manual-pages" / "manual_pages.py"
NAMES = ["-".join(("canhazgpu", *path)) for path in all_commands()]
FILES = [ROOT / "cli" / "man" / f"{name}.1" for name in NAMES]
SECTIONS = [
    *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES"),
    *("EXAMPLES", "SEE ALSO"),
]
WIDTH = 80


def environ(**more: str) -> Mapping[str, str]:
    """Where the environment's own commands are on the PATH, and no MANPATH says more."""
    path = f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "MANWIDTH": str(WIDTH), "HOME": "/", **more}


def ran(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environ(**more), capture_output=True, encoding="utf-8", check=False, timeout=60
    )


def shown(*page: str | Path, width: int = WIDTH) -> str:
    """What `man` shows of a page: its text, without the terminal's emphasis."""
    done = ran("man", "-P", "cat", *page, MANWIDTH=str(width))
    assert (done.returncode, done.stderr) == (0, ""), page
    return done.stdout


def warnings(*files: Path) -> str:
    """What `man`, groff and mandoc find wrong with pages."""
    found = ran("man", "--warnings", "-l", "-Tutf8", "-Z", *files).stderr
    if mandoc := shutil.which("mandoc"):
        found += ran(mandoc, "-T", "lint", *files).stdout
    return found


@pytest.fixture(autouse=True)
def _man(require: Require) -> None:
    require(bool(shutil.which("man") and shutil.which("lexgrog")), "man-db is not installed")


@pytest.mark.slow
def test_they_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_man_finds_all() -> None:
    found = ran("man", "-w", *NAMES).stdout.split()

    assert found == [f"{sys.prefix}/share/man/man1/{name}.1" for name in NAMES]
    assert [Path(one).read_bytes() for one in found] == [one.read_bytes() for one in FILES]


@pytest.mark.slow
def test_nothing_is_wrong_with_them() -> None:
    named = ran("lexgrog", *FILES).stdout.splitlines()

    assert warnings(*FILES) == ""
    expected = [f'{file}: "{name} - ' for name, file in zip(NAMES, FILES, strict=True)]
    assert [line[: len(start)] for line, start in zip(named, expected, strict=True)] == expected


@pytest.mark.slow
@pytest.mark.parametrize("path", list(all_commands()), ids=lambda one: " ".join(one) or "canhazgpu")
def test_it_says_what_the_help_says(path: tuple[str, ...]) -> None:
    command, page = all_commands()[path], shown("-".join(("canhazgpu", *path)))
    text = " ".join(page.split())

    headings = [line for line in page.splitlines() if re.fullmatch(r"[A-Z]+( [A-Z]+)*", line)]
    assert [one for one in headings if one != "COMMANDS"] == SECTIONS
    for paragraph in help_text.parse_help(command.help or "").description:
        assert " ".join(paragraph.text.replace("`", "").split()) in text
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(name in text for name in option.opts)
            assert " ".join((option.help or "").replace("`", "").split()) in text
    for line in (command.epilog or "").splitlines()[2:]:
        assert " ".join(line.split()) in text


def test_the_command_may_be_given_in_two_words() -> None:
    assert ran("man", "-w", "canhazgpu", "run").stdout.endswith("/canhazgpu-run.1\n")


def test_a_page_names_only_pages_that_there_are() -> None:
    for file in FILES:
        named = re.findall(r"\\fB(canhazgpu[^\\(]*(?:\\-[^\\(]*)*)\\fR\(1\)", file.read_text())
        assert named
        assert {one.replace("\\-", "-") for one in named} <= set(NAMES)


HOSTILE = [
    ".so /etc/passwd",
    ".",
    "..",
    ".ex now",
    "'br",
    "'''",
    r"\fBbold\fR",
    r"\n(.c and \*[x]",
    "ends in a backslash\\",
    '.\\" a comment',
    'say "what"',
    "--json -x",
    "~/.zfunc ^ a^b ~",
    "naïve … 漢 →",
    "100% {} %n",
    "x \\& y",
    "\\",
    "-",
]


def hostile_program(texts: list[str]) -> click.Command:
    """A program whose help, options, examples and exit codes are such texts."""
    lines = "\n".join(f"  {one}" for one in texts)
    options = [
        click.Option([f"--option-{number}"], metavar=one, help=f"{one}\n{one}")
        for number, one in enumerate(texts)
    ]
    paragraphs = "\n\n".join(texts)
    below = click.Command("below", help=f"{texts[0]}\n\n{paragraphs}\n\n\b\nExamples:\n{lines}")
    epilog = "\n".join(f"  {number} {one}" for number, one in enumerate(texts))
    group = click.Group("x", params=list(options), help=texts[0], epilog=f"\b\nx\n{epilog}")
    group.add_command(below)
    below.params = list(options)
    return group


@pytest.mark.slow
def test_no_text_is_taken_for_a_request(tmp_path: Path) -> None:
    pages = manual_pages.all_pages(hostile_program(HOSTILE))  # type: ignore[arg-type]
    for name, text in pages.items():
        file = tmp_path / name
        file.write_text(text)

        assert text.isascii()
        assert warnings(file) == ""
        lines = [" ".join(line.split()) for line in shown("-l", file, width=200).splitlines()]
        for one in HOSTILE:
            # as a meaning of an exit code, or a paragraph, and as an example
            assert any(line.endswith(one) for line in lines), (name, one)
    assert "root:" not in shown("-l", tmp_path / "canhazgpu-below.1")


def test_a_dash_is_what_a_shell_takes_for_one() -> None:
    # Debian's groff shows a plain one alike, others as a hyphen
    assert roff.escaped("--json") == r"\-\-json"


@given(st.text(".'\\ \nx-") | st.text())
def test_no_line_begins_a_request(text: str) -> None:
    for line in (*roff.filled(roff.prose(text)), *list(roff.literal(text.split("\n")))[2:-2]):
        assert not line.startswith((".", "'"))
        assert line.isascii()
        assert "\n" not in line


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_nothing_is_lost(text: str) -> None:
    escapes = {code: plain for plain, code in roff._ESCAPES.items()}
    found = re.sub(
        r"\\(\[u([0-9A-F]+)\]|\(..|-)",
        lambda one: chr(int(one[2], 16)) if one[2] else escapes[one[0]],
        roff.escaped(text),
    )

    assert found == text


def test_a_page_that_is_missing_old_or_left_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manual_pages, "DIRECTORY", tmp_path / "man")
    monkeypatch.setattr(sys, "argv", ["manual_pages"])
    assert manual_pages.main() == 0
    (tmp_path / "man" / "canhazgpu-run.1").unlink()
    (tmp_path / "man" / "canhazgpu.1").write_text("old")
    (tmp_path / "man" / "canhazgpu-gone.1").write_text("x")
    monkeypatch.setattr(sys, "argv", ["manual_pages", "--check"])
    assert manual_pages.main() == 1
    told = (
        "old in cli/man: canhazgpu-gone.1, canhazgpu-run.1, canhazgpu.1; refresh with 'make docs'"
    )
    assert capsys.readouterr().err == f"{told}\n"

    monkeypatch.setattr(sys, "argv", ["manual_pages"])
    assert manual_pages.main() == 0

    assert {one.name for one in (tmp_path / "man").iterdir()} == {f"{name}.1" for name in NAMES}

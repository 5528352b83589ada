"""What import contracts cannot see: words that belong to one scheduler, or to one machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "plugin" / "canhazgpu"

# Each with its reason: whoever names one of Slurm's variables outside its adapter gives one.
SLURM_WORDS_ALLOWED = {
    "node/identity.py": {"SLURMD_NODENAME"},  # a node is called as its scheduler calls it
    "config/node_sections.py": {"SLURMD_NODENAME"},  # the reference says where the name comes from
}


def test_only_the_slurm_adapter_names_slurms_variables() -> None:
    found = {
        str(path.relative_to(CORE)): words
        for path in CORE.rglob("*.py")
        if "schedulers/slurm" not in path.as_posix()
        and (words := set(re.findall(r"\bSLURMD?_[A-Z_]+", path.read_text())))
    }
    too_many = {path: words - SLURM_WORDS_ALLOWED.get(path, set()) for path, words in found.items()}
    assert not any(too_many.values()), too_many


def test_the_namespace_has_no_init_module() -> None:
    # One portion with an __init__.py would hide all others.
    assert not list(ROOT.glob("*/canhazgpu/__init__.py"))


def test_what_calls_itself_pure_is_held_to_it_by_a_contract() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (
        one for one in tools["importlinter"]["contracts"] if one["name"].startswith("Values and")
    )
    held = tuple(f"{one}." for one in contract["source_modules"])
    pure = [name for name, text in module_docstrings() if re.search(r"; pure\.", text)]
    assert len(pure) > 100
    assert [name for name in pure if not f"{name}.".startswith(held)] == []


def module_docstrings() -> Iterator[tuple[str, str]]:
    """Yield the name of each module of the product, and the first line of its docstring."""
    for portion in ROOT.glob("*/canhazgpu"):
        for path in portion.rglob("*.py"):
            name = ".".join(path.relative_to(portion.parent).with_suffix("").parts)
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            yield name, text.partition("\n")[0]


def test_modules_that_are_imported_by_a_text_exist() -> None:
    # No linter looks into the programs that tests hand to another Python.
    wanted = {
        (str(path.relative_to(ROOT)), name)
        for folder in (*ROOT.glob("*/canhazgpu"), ROOT / "contrib", ROOT / "tests")
        for path in folder.rglob("*.py")
        for name in re.findall(r"\b(?:import|from) (canhazgpu(?:\.\w+)+)", path.read_text())
    }
    assert len(wanted) > 1000
    lacking = {name for _, name in wanted if not any(map(Path.exists, paths_of(name)))}
    assert sorted(one for one in wanted if one[1] in lacking) == []


def paths_of(module: str) -> Iterator[Path]:
    for portion in ROOT.glob("*/canhazgpu"):
        path = portion.parent / module.replace(".", "/")
        yield from (path, path.with_suffix(".py"))


def test_every_portion_is_in_the_wheel() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    portions = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/canhazgpu") if path.is_dir()}
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == portions
    roots = {portion.split("/")[0] for portion in portions}
    assert set(tools["hatch"]["build"]["dev-mode-dirs"]) == roots
    assert roots <= set(tools["mypy"]["mypy_path"].split(":"))


def test_scripts_are_executable() -> None:
    scripts = [
        path
        for folder in (".ci", "contrib")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.read_bytes()[:2] == b"#!"
    ]
    assert scripts
    assert not [path for path in scripts if not path.stat().st_mode & 0o100]


def test_shell_scripts_parse() -> None:
    for path in [*(ROOT / "contrib" / "dev").iterdir(), ROOT / ".ci" / "run"]:
        if path.read_bytes().startswith(b"#!/bin/bash"):
            subprocess.run(["bash", "-n", path], check=True)


def test_links_in_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("contrib/*/README.md")]
    dead = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not dead

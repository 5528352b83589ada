"""What a module keeps, a handler keeps for the next request: none keeps more than what it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import canhazgpu.errors
from canhazgpu.agent.listener.preload import NOT_FOR_HANDLERS, PACKAGES

ROOT = Path(canhazgpu.errors.__file__).parent
HANDLER = ("agent/handler", "agent/wire", "agent/scanner")
MAY_BE_KEPT = {
    # What a text means, by the text.
    "config/load.py:_effective",
    "schedulers/slurm/conf/conf_files.py:_parsed",
    # What never changes.
    "config/schema.py:all_keys",
    "ledger/store/answer_wait.py:budgeted",
    "ledger/store/script_texts.py:_folders",
    "ledger/store/session.py:load_script",
    # Connected to nothing until it is used, once; and what is disconnected after each request.
    "ledger/store/client.py:_prepared",
    "ledger/store/client.py:_opened",
    # A thread that hangs: a process that has one takes no other request.
    "probe/nvml/utilization.py:_hanging",
}
CHANGES = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "remove",
    "setdefault",
    "update",
}


def kept(tree: ast.Module) -> Iterator[str]:
    """What functions of the module change outside of themselves, and what is cached."""
    names = set(_module_names(tree))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            # A cached property is its object's.
            decorators = [ast.unparse(one) for one in function.decorator_list]
            if any("cache" in one and "cached_property" not in one for one in decorators):
                yield function.name
            yield from (name for name in _changed(function) if name in names)


def _changed(function: ast.FunctionDef) -> Iterator[str]:
    """The names of what a function may change, its own included."""
    for node in ast.walk(function):
        match node:
            case ast.Global():
                yield from node.names
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)):
                if attribute in CHANGES:
                    yield name


def _module_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


@pytest.mark.slow
def test_a_module_keeps_nothing_of_a_request() -> None:
    found = set()
    for package in (*PACKAGES, *HANDLER):
        for path in (ROOT / package).rglob("*.py"):
            relative = path.relative_to(ROOT)
            if not NOT_FOR_HANDLERS.intersection(relative.parts):
                tree = ast.parse(path.read_text("utf-8"))
                found |= {f"{relative}:{name}" for name in kept(tree)}
    assert found == MAY_BE_KEPT


@pytest.mark.parametrize(
    "text",
    [
        "known = {}\ndef f(): known['a'] = 1",
        "known = []\ndef f(): known.append(1)",
        "known = 0\ndef f():\n global known",
        "@lru_cache(maxsize=4)\ndef known(): pass",
        "class A:\n @functools.cache\n def known(self): pass",
    ],
)
def test_what_would_be_kept_is_seen(text: str) -> None:
    assert set(kept(ast.parse(text))) == {"known"}

"""Import everything that a handler may need: a handler itself imports nothing.

Beside the modules these are texts that never change while the agent runs, as the store's scripts.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from canhazgpu.config.schema import all_keys
from canhazgpu.ledger.store.session import load_all_scripts

PACKAGES = (
    "allocation",
    "config",
    "conflict",
    "gpu",
    "in_process",
    "ledger",
    "node",
    "people",
    "probe",
    "report",
    "schedulers",
    "service",
    "status",
)
NOT_FOR_HANDLERS = frozenset({"site", "ml_model"})
"""Folders whose modules no request needs."""

LIBRARIES = (
    "_strptime",
    "array",
    "csv",
    "ctypes.util",
    "difflib",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8_sig",
    "pwd",
    "pynvml",
    "queue",
    "redis",
    "redis.cluster",
    "redis.sentinel",
    "secrets",
    "socket",
    "ssl",
    "stringprep",
    "tempfile",
    "tomllib",
    "traceback",
    "unicodedata",
)
"""What libraries import when they are used, and what is imported in functions."""


def import_everything() -> None:
    """Import it."""
    for package in PACKAGES:
        for name in sorted(_modules(f"canhazgpu.{package}")):
            import_module(name)
    for name in LIBRARIES:
        # What is not installed is missed where it is used, and the message is there.
        with contextlib.suppress(ImportError):
            import_module(name)
    load_all_scripts()
    all_keys()


def freeze() -> None:
    """Keep the garbage collector from touching what there is: forks share its memory."""
    gc.collect()
    gc.freeze()


def _modules(package: str) -> Iterator[str]:
    """Yield all modules of a package, whose folders have no ``__init__.py``."""
    for directory in import_module(package).__path__:
        for path in Path(directory).rglob("*.py"):
            relative = path.relative_to(directory).with_suffix("")
            if not NOT_FOR_HANDLERS.intersection(relative.parts):
                yield ".".join((package, *(part for part in relative.parts if part != "__init__")))

"""A plugin for pytest: what `make test-fast` does less of, so that it takes a minute.

It leaves out tests marked `slow`, `slurm` and `variant`, and gives a property fewer examples:
it runs with ``--hypothesis-profile=fast``. A module all of whose tests are left out is not even
imported: each worker collects for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

FAST_PROFILE = "fast"
FAST_EXAMPLES = 10
MARK_OF_ALL = re.compile(
    r"^pytestmark = (?:\[[^\]]*|.*)\bmark\.(?:slow|slurm|variant)\b", re.MULTILINE
)
"""A module's own mark, alone or in a list."""
leaves_variants_out = False


def is_fast(config: pytest.Config) -> bool:
    """Return whether this is the run of `make test-fast`."""
    return bool(config.getoption("--hypothesis-profile", None) == FAST_PROFILE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if is_fast(config) and collection_path.suffix == ".py":
        return bool(MARK_OF_ALL.search(collection_path.read_text())) or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global leaves_variants_out  # noqa: PLW0603 - modules ask while they are imported
    # Before hypothesis' own, which loads the profile.
    if is_fast(config):
        from hypothesis import HealthCheck, settings

        leaves_variants_out = True
        # On a busy machine any example may take long.
        settings.register_profile(
            FAST_PROFILE,
            max_examples=FAST_EXAMPLES,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )


def first_and_variants(values: Iterable[Any]) -> list[Any]:
    """Return a fixture's parameters: the first, and the others marked `variant`.

    For a suite that goes over several implementations of one thing. Where variants are left out,
    none are made.
    """
    first, *others = values
    if leaves_variants_out:
        return [first]
    return [first, *(pytest.param(other, marks=pytest.mark.variant) for other in others)]

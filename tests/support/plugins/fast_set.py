"""A plugin for pytest: what `make test-fast` does less of, so that it takes a minute.

It leaves out tests marked `slow`, `slurm` and `variant`, and gives a property fewer examples:
it runs with ``--hypothesis-profile=fast``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

FAST_PROFILE = "fast"
FAST_EXAMPLES = 10


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before hypothesis' own, which loads the profile.
    if config.getoption("--hypothesis-profile", None) == FAST_PROFILE:
        from hypothesis import settings

        settings.register_profile(FAST_PROFILE, max_examples=FAST_EXAMPLES)


def first_and_variants(values: Iterable[Any]) -> list[Any]:
    """Return a fixture's parameters: the first, and the others marked `variant`.

    For a suite that goes over several implementations of one thing.
    """
    first, *others = values
    return [first, *(pytest.param(other, marks=pytest.mark.variant) for other in others)]

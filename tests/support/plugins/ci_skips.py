"""A plugin for pytest: nothing is skipped unnoticed in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator

import pytest

Require = Callable[[bool, str], None]


def in_ci() -> bool:
    return bool(os.environ.get("CI"))


@pytest.fixture
def require() -> Require:
    """Skip where a condition of the test does not hold; the hook below makes it fail in CI."""

    def check(condition: bool, reason: str) -> None:
        if not condition:
            pytest.skip(reason)

    return check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("may_skip") is None:
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure; an expected failure is reported as a skip, and stays one."""
    if not in_ci() or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"in CI nothing may be missing: {reason}"

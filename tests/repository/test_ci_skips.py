"""A skip is a failure in CI, or nobody would see that a whole part was never tested."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]
HOOKS = Path(__file__).parents[1] / "support" / "plugins" / "ci_skips.py"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    shutil.copyfile(HOOKS, pytester.path / "conftest.py")
    pytester.makeini("[pytest]\nmarkers =\n  may_skip: x\n")
    pytester.makepyfile(
        test_one="""
        import pytest

        def test_required(require):
            require(False, "no server")

        @pytest.mark.skipif(True, reason="no root")
        def test_marked():
            pass

        @pytest.mark.may_skip
        def test_excused():
            pytest.skip("only on some kernels")

        @pytest.mark.xfail(reason="known")
        def test_expected():
            assert False
        """,
        test_module="""
        import pytest
        pytest.importorskip("no_such_module_at_all")
        """,
    )
    return pytester


def test_skips_are_skips_on_a_developers_machine(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    project.runpytest_subprocess().assert_outcomes(skipped=4, xfailed=1)


def test_skips_are_failures_in_ci(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = project.runpytest_subprocess("--continue-on-collection-errors")
    result.assert_outcomes(failed=1, errors=2, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*in CI nothing may be missing: *no server*"])

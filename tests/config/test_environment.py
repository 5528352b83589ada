"""Variables with canhazgpu's prefix: its keys, another tool's, and misspelt keys."""

from __future__ import annotations

import pytest

from canhazgpu.config import Config, load
from canhazgpu.config.environment import (
    ignored_variables_text,
    refuse_misspelt_variables,
    unknown_variables,
)
from canhazgpu.config.schema import all_keys
from canhazgpu.errors import ConfigError

OTHER_TOOLS = ["CANHAZGPU_REDIS_HOST", "CANHAZGPU_REDIS_PORT", "CANHAZGPU_MEMORY_THRESHOLD",
               "CANHAZGPU_HOME", "CANHAZGPU_"]  # fmt: skip
MISSPELT = {
    "CANHAZGPU_STORE_TIMEOUT": "CANHAZGPU_STORE_TIMEOUT_S",
    "CANHAZGPU_VALIDATION_MEMORY_TRESHOLD_MB": "CANHAZGPU_VALIDATION_MEMORY_THRESHOLD_MB",
    "CANHAZGPU_VALIDATON_SCAN_TIMEOUT_S": "CANHAZGPU_VALIDATION_SCAN_TIMEOUT_S",
    "CANHAZGPU_RUN_ZZZ": "",
}


@pytest.mark.parametrize("name", OTHER_TOOLS)
def test_another_tools_variable_stops_nothing(name: str) -> None:
    refuse_misspelt_variables({name: "x"})
    assert load({name: "x"}).config == Config()
    assert name in ignored_variables_text({name: "x"})


@pytest.mark.parametrize(("name", "similar"), MISSPELT.items())
def test_a_misspelt_key_is_refused_unless_the_caller_tells_of_it(name: str, similar: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key {name} in the environment") as caught:
        load({name: "hunter2"})
    assert (similar or "config show") in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert load({name: "x"}, refuses_misspelt_variables=False).config == Config()
    assert (f"(did you mean {similar}?)" in ignored_variables_text({name: "x"})) is bool(similar)


def test_all_are_told_in_one_line() -> None:
    told = ignored_variables_text(dict.fromkeys([*OTHER_TOOLS, *MISSPELT], "hunter2"))
    assert "\n" not in told
    assert "hunter2" not in told
    assert all(name in told for name in (*OTHER_TOOLS, *MISSPELT))


def test_what_is_known_is_not_told() -> None:
    own = [one.variable for one in all_keys().values()]
    environ = dict.fromkeys([*own, "CANHAZGPU_CONFIG", "CANHAZGPU_OWNER", "CANHAZGPU_GPUS"], "x")
    assert unknown_variables({**environ, "_CANHAZGPU_COMPLETE": "x", "PATH": "x"}) == ()
    assert ignored_variables_text(environ) == ""

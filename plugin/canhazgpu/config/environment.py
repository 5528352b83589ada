"""The variables ``CANHAZGPU_…`` of an environment: keys of the configuration, and others; pure.

Other tools use the prefix too. Their variables are told and stop nothing. A variable that begins
like a key, or is almost one, is a misspelt key: what changes the ledger refuses it, because it
would go on with another value than the one that was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from canhazgpu.config.schema import SECTIONS, Key, all_keys
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass

CONFIG_VARIABLE = "CANHAZGPU_CONFIG"
AGENT_SOCKET_VARIABLE = "CANHAZGPU_AGENT_SOCKET"
PREFIX = "CANHAZGPU_"
NON_KEY_VARIABLES = frozenset(
    {CONFIG_VARIABLE, AGENT_SOCKET_VARIABLE, "CANHAZGPU_OWNER", "CANHAZGPU_GPUS"}
)
"""Variables with the prefix that are canhazgpu's own and no keys.

CANHAZGPU_AGENT_SOCKET is where the node's agent is. CANHAZGPU_OWNER marks the processes of a run;
CANHAZGPU_GPUS tells jobs and runs their GPUs."""

_MIN_SIMILARITY = 0.75
_KEYS_ARE_LISTED = "'canhazgpu config show' lists the keys"


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable with the prefix that canhazgpu does not know.

    `similar` is the variable of the key that is almost it, empty without one.
    """

    name: str
    similar: str = ""

    @property
    def is_misspelt_key(self) -> bool:
        """Whether it looks like a key; what is not is another tool's."""
        sections = tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)
        return bool(self.similar) or self.name.startswith(sections)

    @property
    def text(self) -> str:
        """Its name, with the suggestion."""
        return f"{self.name} (did you mean {self.similar}?)" if self.similar else self.name


def unknown_variables(environ: Iterable[str]) -> tuple[UnknownVariable, ...]:
    """Return the variables of the environment, sorted, that have the prefix and no meaning."""
    found = sorted(name for name in environ if name.startswith(PREFIX))
    if not found:
        return ()
    known = {one.variable for one in all_keys().values()} | NON_KEY_VARIABLES
    return tuple(UnknownVariable(name, similar(name, known)) for name in found if name not in known)


def ignored_variables_text(environ: Iterable[str]) -> str:
    """Return one line that tells which variables mean nothing to canhazgpu; empty for none."""
    found = ", ".join(one.text for one in unknown_variables(environ))
    return f"no keys of the configuration, ignored: {found}; {_KEYS_ARE_LISTED}" if found else ""


def refuse_misspelt_variables(environ: Iterable[str]) -> None:
    """Raise `ConfigError` for the first variable that is a misspelt key."""
    for one in unknown_variables(environ):
        if one.is_misspelt_key:
            advice = f"did you mean {one.similar}?" if one.similar else _KEYS_ARE_LISTED
            raise ConfigError(f"unknown key {one.name} in the environment; {advice}")


def key_values(environ: Mapping[str, str], keys: Mapping[str, Key]) -> dict[str, str]:
    """Return the values of keys that the environment sets, by the key's path."""
    return {one.path: environ[one.variable] for one in keys.values() if one.variable in environ}


def similar(name: str, known: Iterable[str]) -> str:
    """Return the known name that is almost this one, empty for none."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a misspelling needs it

    # The prefix is removed: it would make all variables similar.
    short = {one.removeprefix(PREFIX): one for one in known}
    close = get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=_MIN_SIMILARITY)
    return short[close[0]] if close else ""

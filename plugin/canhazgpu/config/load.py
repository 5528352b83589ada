"""Read the configuration from its four sources, and record the source of each value."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from canhazgpu.config.schema import SECTIONS, Config, Key, all_keys
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass

DEFAULT_CONFIG_FILE = Path("/etc/canhazgpu/config.toml")
CONFIG_VARIABLE = "CANHAZGPU_CONFIG"
PREFIX = "CANHAZGPU_"
NON_KEY_VARIABLES = frozenset({CONFIG_VARIABLE, "CANHAZGPU_OWNER", "CANHAZGPU_GPUS"})
"""Variables with the prefix that are no keys.

CANHAZGPU_OWNER marks the processes of a run; CANHAZGPU_GPUS tells jobs and runs their GPUs."""


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """The configuration in force; `origins` maps each key's path to the source of its value."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None


def load(
    environ: Mapping[str, str],
    *,
    file: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> EffectiveConfig:
    """Return the configuration in force: default < file < environment < `overrides` (flags).

    `file` wins over ``CANHAZGPU_CONFIG``, and that over the default file. The default file may be
    missing; a named one may not. Raises `ConfigError`, which names the key, its source and what is
    accepted.
    """
    path = _config_file(environ, file)
    keys = all_keys()
    values: dict[str, Any] = {one.path: one.default for one in keys.values()}
    origins = dict.fromkeys(keys, "default")
    for origin, found in (
        *_from_file(path, keys),
        *_from_environment(environ, keys),
        *_from_flags(overrides or {}, keys),
    ):
        for name, value in found.items():
            values[name] = _validated(keys[name], value, origin)
            origins[name] = origin
    sections = {
        section: kind(
            **{one.name: values[one.path] for one in keys.values() if one.section == section}
        )
        for section, kind in SECTIONS.items()
    }
    return EffectiveConfig(Config(**sections), origins, path)


def _config_file(environ: Mapping[str, str], file: str | None) -> Path | None:
    named = file or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    try:
        return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.exists() else None
    except OSError:
        # This user may not enter the directory; reading the file then gives the error.
        return DEFAULT_CONFIG_FILE


SourceValues = tuple[str, dict[str, Any]]


def _from_file(path: Path | None, keys: Mapping[str, Key]) -> Iterator[SourceValues]:
    if path is None:
        return
    origin = f"file {path}"
    for section, content in _parsed(path).items():
        if section not in SECTIONS:
            raise ConfigError(
                f"unknown section [{section}] in {path}; known: {', '.join(SECTIONS)}"
            )
        if not isinstance(content, dict):
            raise ConfigError(f"{section} in {path} must be a section: write [{section}]")
        for name in content:
            _require_known_key(f"{section}.{name}", str(path), keys)
        yield origin, {f"{section}.{name}": value for name, value in content.items()}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as exc:
        raise ConfigError(f"cannot read configuration file {path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        # TOMLDecodeError, UnicodeDecodeError, and other errors that tomllib does not catch.
        raise ConfigError(f"configuration file {path} is not TOML: {exc}") from exc


def _from_environment(
    environ: Mapping[str, str], keys: Mapping[str, Key]
) -> Iterator[SourceValues]:
    by_variable = {one.variable: one for one in keys.values()}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in NON_KEY_VARIABLES:
            continue
        if variable not in by_variable:
            raise ConfigError(
                f"unknown key {variable} in the environment{_suggestion(variable, by_variable)}"
            )
        yield f"environment {variable}", {by_variable[variable].path: environ[variable]}


def _from_flags(overrides: Mapping[str, str], keys: Mapping[str, Key]) -> Iterator[SourceValues]:
    for path, value in overrides.items():
        _require_known_key(path, "the command line", keys)
        yield "flag", {path: value}


def _require_known_key(path: str, origin: str, keys: Mapping[str, Key]) -> None:
    if path not in keys:
        raise ConfigError(f"unknown key {path} in {origin}{_suggestion(path, keys)}")


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a misspelling needs it

    # The prefix is removed: it would make all variables similar.
    short = {one.removeprefix(PREFIX): one for one in known}
    close = get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=0.75)
    return f"; did you mean {short[close[0]]}?" if close else "; 'canhazgpu config show' lists them"


def _validated(key: Key, value: Any, origin: str) -> Any:
    """Return the value in the key's type; raise `ConfigError` if it is not accepted."""
    converted = _converted(key, value)
    if converted is None:
        accepted: str | None = _ACCEPTED[key.type]
    else:
        accepted = key.info.check(converted) if key.info.check else None
    if accepted is None:
        return converted
    shown = "the given value" if key.info.secret else repr(value)
    raise ConfigError(f"{key.path} = {shown} ({origin}) is not accepted; accepted: {accepted}")


_ACCEPTED: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    tuple: 'a list of words, as in ["Xorg", "dcgm"], or Xorg,dcgm outside the file',
}


def _converted(key: Key, value: Any) -> Any:
    """Return the value in the key's type, None if it has another.

    Files contain typed values; the environment and options contain text.
    """
    if isinstance(value, bool):
        return None
    if key.type is tuple:
        return _word_list(value)
    if isinstance(value, key.type) or (key.type is float and isinstance(value, int)):
        return key.type(value)
    if isinstance(value, str):
        try:
            return key.type(value.strip())
        except ValueError:
            return None
    return None


def _word_list(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",")) if value.strip() else ()
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None

"""Read the configuration from its four sources, and record the source of each value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from canhazgpu.config.environment import (
    CONFIG_VARIABLE,
    key_values,
    refuse_misspelt_variables,
    similar,
)
from canhazgpu.config.personal import personal_defaults
from canhazgpu.config.schema import SECTIONS, Config, Key, all_keys
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.path_presence import may_exist

DEFAULT_CONFIG_FILE = Path("/etc/canhazgpu/config.toml")
OWN_DEFAULT = "your own default"


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
    refuses_misspelt_variables: bool = True,
) -> EffectiveConfig:
    """Return the configuration in force: default < file < environment < `overrides` (flags).

    `file` wins over ``CANHAZGPU_CONFIG``, and that over the default file. The default file may be
    missing; a named one may not. Without either, a user on a host that root has not set up has
    defaults and a file of their own: see `canhazgpu.config.personal`. Raises `ConfigError`, which
    names the key, its source and what is accepted. A variable that is a misspelt key is refused
    too, unless the caller tells of it.
    """
    try:
        if refuses_misspelt_variables:
            refuse_misspelt_variables(environ)
        path, own_defaults = _file_and_defaults(environ, file)
        text = None if path is None else _text(path)
        variables = tuple(key_values(environ, all_keys()).items())
        flags = tuple((overrides or {}).items())
        return _effective(path, text, own_defaults, variables, flags)
    except ConfigError as exc:
        if exc.next_step is None:
            exc.next_step = "correct it, and try with 'canhazgpu config show'"
        raise


Pairs = tuple[tuple[str, str], ...]


@lru_cache(maxsize=4)
def _effective(
    path: Path | None, text: bytes | None, own_defaults: Pairs, variables: Pairs, flags: Pairs
) -> EffectiveConfig:
    """Return what these texts mean.

    It depends on nothing else, so it is kept: the agent's handlers have it from their parent, as
    long as the file's text is the same.
    """
    keys = all_keys()
    values: dict[str, Any] = {one.path: one.default for one in keys.values()}
    origins = dict.fromkeys(keys, "default")
    for origin, found in (
        (OWN_DEFAULT, dict(own_defaults)),
        *_from_file(path, text, keys),
        *_from_environment(variables, keys),
        *_from_flags(flags, keys),
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


def _file_and_defaults(environ: Mapping[str, str], file: str | None) -> tuple[Path | None, Pairs]:
    """Return the configuration file, and the defaults that are the caller's own."""
    if named := file or environ.get(CONFIG_VARIABLE):
        return Path(named), ()
    if own := personal_defaults(environ, DEFAULT_CONFIG_FILE):
        return own.file, own.values
    # Where this user cannot reach the file, reading it gives the error.
    return (DEFAULT_CONFIG_FILE if may_exist(DEFAULT_CONFIG_FILE) else None), ()


SourceValues = tuple[str, dict[str, Any]]


def _from_file(
    path: Path | None, text: bytes | None, keys: Mapping[str, Key]
) -> Iterator[SourceValues]:
    if path is None or text is None:
        return
    origin = f"file {path}"
    for section, content in _parsed(path, text).items():
        if section not in SECTIONS:
            raise ConfigError(
                f"unknown section [{section}] in {path}; known: {', '.join(SECTIONS)}"
            )
        if not isinstance(content, dict):
            raise ConfigError(f"{section} in {path} must be a section: write [{section}]")
        for name in content:
            _require_known_key(f"{section}.{name}", str(path), keys)
        yield origin, {f"{section}.{name}": value for name, value in content.items()}


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"cannot read configuration file {path}: {exc.strerror}",
            next_step=f"--config or {CONFIG_VARIABLE} names another",
        ) from exc


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as exc:
        # TOMLDecodeError, UnicodeDecodeError, and other errors that tomllib does not catch.
        raise ConfigError(f"configuration file {path} is not TOML: {exc}") from exc


def _from_environment(variables: Pairs, keys: Mapping[str, Key]) -> Iterator[SourceValues]:
    for path, value in variables:
        yield f"environment {keys[path].variable}", {path: value}


def _from_flags(flags: Pairs, keys: Mapping[str, Key]) -> Iterator[SourceValues]:
    for path, value in flags:
        _require_known_key(path, "the command line", keys)
        yield "flag", {path: value}


def _require_known_key(path: str, origin: str, keys: Mapping[str, Key]) -> None:
    if path not in keys:
        raise ConfigError(f"unknown key {path} in {origin}{_suggestion(path, keys)}")


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    close = similar(name, known)
    listing = "; 'canhazgpu --config /dev/null config show' lists them"
    return f"; did you mean {close}?" if close else listing


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

    Files contain typed values; the environment and options contain text. Text is also read in the
    form that ``config show`` prints: in quotes, and lists in brackets.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.strip().startswith(_PRINTED_FORMS.get(key.type, ())):
        value = _printed_value(value)
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


_PRINTED_FORMS: dict[type, tuple[str, ...]] = {str: ('"',), tuple: ("[",)}
"""How ``config show`` begins a value of this type; such a value is JSON as well as TOML."""


def _printed_value(text: str) -> Any:
    """Return the value that a text in the form of ``config show`` is, None for a malformed one."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _word_list(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",")) if value.strip() else ()
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None

"""`canhazgpu config`: show the configuration and where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.config import DEFAULT_CONFIG_FILE, EffectiveConfig
from canhazgpu.config.schema import Key, all_keys
from canhazgpu.ledger.store.connect import masked_url


@click.group(cls=CommandGroup, epilog=exit_codes())
def config() -> None:
    """Show the configuration.

    \b
    Example:
      canhazgpu config show
    """  # noqa: D301 - click reads the character: keep these lines


@config.command(epilog=exit_codes())
@json_option
@click.pass_obj
def show(app: App, as_json: bool) -> None:
    """Show every key, its value in force, its meaning and its origin.

    A value comes from the defaults, the configuration file, the environment
    (CANHAZGPU_SECTION_KEY) or --set; a later one wins. The output is itself a
    configuration file, except that passwords are masked.

    \b
    Examples:
      canhazgpu config show
      canhazgpu config show --json
      CANHAZGPU_VALIDATION_MEMORY_THRESHOLD_MB=512 canhazgpu config show
    """  # noqa: D301 - click reads the character: keep these lines
    effective = app.effective_config()
    text = _json(effective) if as_json else "\n".join(_toml_lines(effective))
    click.echo(text)


def _value(effective: EffectiveConfig, key: Key) -> Any:
    return _masked(key, getattr(getattr(effective.config, key.section), key.name))


def _masked(key: Key, value: Any) -> Any:
    # The URL of Redis is the only secret; all but its password stays readable.
    return masked_url(value) if key.info.secret else value


def _toml_lines(effective: EffectiveConfig) -> Iterator[str]:
    absent = f"none ({DEFAULT_CONFIG_FILE} does not exist)"
    yield f"# configuration file: {effective.file or absent}"
    section = ""
    for key in all_keys().values():
        if key.section != section:
            section = key.section
            yield f"\n[{section}]"
        yield f"# {key.info.meaning}"
        # JSON's strings and numbers are valid TOML.
        line = f"{key.name} = {json.dumps(_value(effective, key))}"
        yield f"{line}  # {effective.origins[key.path]}"


def _json(effective: EffectiveConfig) -> str:
    keys = [
        {
            "key": key.path,
            "value": _value(effective, key),
            "from": effective.origins[key.path],
            "default": _masked(key, key.default),
            "environment": key.variable,
            "meaning": key.info.meaning,
        }
        for key in all_keys().values()
    ]
    file = str(effective.file) if effective.file else None
    return json.dumps({"file": file, "keys": keys}, indent=2)

"""Make HTML of the templates. Whatever a template prints is made harmless, then escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from canhazgpu.cli.terminal.text import printable
from canhazgpu.durations import short_duration_text
from canhazgpu.status.event_format import MAX_LINE
from canhazgpu.status.json_format import iso_time

HERE = Path(__file__).parent
STATIC = HERE / "static"
MAX_NAME = 60
"""Characters of a name in a cell; its title has more."""


def make_environment(root_path: str) -> jinja2.Environment:
    """Return the environment of the templates; `root_path` is before every address of a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.globals["root"] = root_path
    environment.filters |= {
        "short": short,
        "segment": segment,
        "ago": short_duration_text,
        "iso": iso_time,
    }
    return environment


def _harmless(value: Any) -> Any:
    """Take from a text what commands a terminal or turns its direction; bound its length."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value[: 2 * MAX_LINE])[:MAX_LINE]
    return value


def short(text: str, most: int = MAX_NAME) -> str:
    """Return the text, of one that is too long the beginning."""
    text = printable(text[: 8 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def segment(name: str) -> str:
    """Return a name as a part of an address."""
    return quote(name[:MAX_LINE], safe="", errors="replace")


def json_text(document: Any) -> str:
    """Return the JSON of a document, in ASCII and without blanks."""
    return json.dumps(document, separators=(",", ":"))

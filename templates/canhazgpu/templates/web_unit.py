"""The text of systemd's unit for the pages of `canhazgpu web`. Nothing here writes a file."""

from __future__ import annotations

from canhazgpu.templates.render import render

WEB_UNIT = "canhazgpu-web.service"


def web_unit_text(
    python: str,
    config_file: str | None = None,
    login_file: str = "",
    *,
    through_agent: bool = False,
) -> str:
    """Return the unit; all paths are absolute.

    `config_file` is None for the default file. `login_file` is the configured file with the login
    of the store, "" for none. `through_agent` has the page ask this host's agent.
    """
    return render(
        "web.service",
        {
            "unit": WEB_UNIT,
            "python": python,
            "config_file": config_file,
            "login_file": login_file,
            "through_agent": through_agent,
        },
    )

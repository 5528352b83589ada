"""Which way a page reads the cluster: by the store's login, or through this host's agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canhazgpu.agent.agent_socket import absent_agent, agent_socket
from canhazgpu.config.load import load
from canhazgpu.errors import ConfigError
from canhazgpu.ledger.store.login import why_no_login

if TYPE_CHECKING:
    from canhazgpu.config import EffectiveConfig
    from canhazgpu.config.schema import Config

NO_AGENT = "web.source = 'agent', and this host has no agent: CANHAZGPU_AGENT_SOCKET names another"


@dataclass(frozen=True, slots=True)
class Choice:
    """The configuration, and the socket of the agent that is to be asked, "" for the store.

    `why` says in words why it is the agent.
    """

    effective: EffectiveConfig
    agent: str = ""
    why: str = ""

    @property
    def config(self) -> Config:
        """The configuration in force; without the file where this user cannot read it."""
        return self.effective.config


def choose_source(
    environ: Mapping[str, str], config_file: str | None, overrides: Mapping[str, str]
) -> Choice:
    """Return the way to read; raises `ConfigError`.

    The store, where this user has a login of it, or may need none. Else this host's agent, if it
    has one. `web.source` overrules both.
    """
    agent = _agent_here(environ, config_file)
    try:
        effective = _loaded(environ, config_file, overrides)
    except ConfigError as exc:
        if not isinstance(exc.__cause__, PermissionError) or not agent:
            raise
        # Its keys for the page are not known either: what else is given counts, and defaults.
        effective = _loaded(environ, os.devnull, overrides)
        if effective.config.web.source == "store":
            raise
        return Choice(effective, agent, f"this user cannot read {config_file_of(exc)}")
    source = effective.config.web.source
    if source == "agent":
        if not agent:
            raise ConfigError(NO_AGENT)
        return Choice(effective, agent, "web.source says so")
    why = _why_no_login(effective) if source == "auto" and agent else ""
    return Choice(effective, agent if why else "", why)


def config_file_of(error: ConfigError) -> str:
    """Return the file that could not be read."""
    cause = error.__cause__
    named = cause.filename if isinstance(cause, OSError) else None
    return str(named) if named else "the configuration"


def _loaded(
    environ: Mapping[str, str], file: str | None, overrides: Mapping[str, str]
) -> EffectiveConfig:
    return load(environ, file=file, overrides=overrides, refuses_misspelt_variables=False)


def _agent_here(environ: Mapping[str, str], config_file: str | None) -> str:
    """Return the socket of this host's agent, whether it runs now or not; "" for none."""
    return agent_socket(environ, config_file or "") or absent_agent(environ)


def _why_no_login(effective: EffectiveConfig) -> str:
    if effective.origins["store.url"] == "default":
        return "nobody says where the store is"
    return why_no_login(effective.config.store)

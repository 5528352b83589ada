"""Configuration: one frozen object, parsed once; default < file < environment < flag."""

from canhazgpu.config.load import DEFAULT_CONFIG_FILE, Effective, load
from canhazgpu.config.schema import Config

__all__ = ["DEFAULT_CONFIG_FILE", "Config", "Effective", "load"]

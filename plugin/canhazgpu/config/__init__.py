"""Configuration: one frozen object, parsed once; default < file < environment < flag."""

from canhazgpu.config.load import DEFAULT_CONFIG_FILE, EffectiveConfig, load
from canhazgpu.config.schema import Config

__all__ = ["DEFAULT_CONFIG_FILE", "Config", "EffectiveConfig", "load"]

"""The server's configuration: what can be set, what is legal, and where a value came from.

Rules:
- A value is taken from the flags, else from its `KVBLOCK_*` variable, else from the TOML file,
  else from the defaults. A list is taken from one source as a whole.
- What nobody knows (a key of the file, a `KVBLOCK_*` variable) is an error; variables of plug-ins
  have prefixes of their own.
- All problems are told at once, each with its source, its value and what is legal.
- A ServerConfig that exists is valid and does not change.
"""

from kvblock_service.config.addresses import default_listen
from kvblock_service.config.load import (
    CLIENT_VARIABLES,
    PLUGIN_PREFIXES,
    LoadedConfig,
    load_config,
    load_with_sources,
)
from kvblock_service.config.model import Limits, PoolConfig, ServerConfig
from kvblock_service.config.problems import ConfigError

__all__ = [
    "CLIENT_VARIABLES",
    "PLUGIN_PREFIXES",
    "ConfigError",
    "Limits",
    "LoadedConfig",
    "PoolConfig",
    "ServerConfig",
    "default_listen",
    "load_config",
    "load_with_sources",
]

"""The server's configuration: what can be set, what is legal, and where a value came from.

Rules:
- A value is taken from the flags, else from its `KVBLOCK_*` variable, else from the TOML file,
  else from the defaults. A list is taken from one source as a whole.
- An unknown key of the file or `KVBLOCK_*` variable is an error; variables of plug-ins
  have prefixes of their own.
- All problems are reported at once, each with its source, its value and what is legal.
- ServerSettings that exist are valid and do not change.
"""

from kvblock_service.config.addresses import default_listen
from kvblock_service.config.load import LoadedSettings, load_settings
from kvblock_service.config.model import ServerSettings
from kvblock_service.config.pool_config import PoolConfig
from kvblock_service.config.problems import ConfigError

__all__ = [
    "ConfigError",
    "LoadedSettings",
    "PoolConfig",
    "ServerSettings",
    "default_listen",
    "load_settings",
]

"""Collects the settings from their sources and makes a ServerConfig of them.

Rules:
- `KVBLOCK_*` variables that are neither a setting nor the client's are errors, so that a typing
  mistake is seen. Passed over are those of plug-ins, by their prefixes, and those that Kubernetes
  sets for a service named `kvblock`.
- An empty variable counts as not set.
- A file that cannot be read is the only problem that is told: the others may follow from it.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from kvblock.trusted_file import UnusableFileError, read_file
from kvblock_service.config.addresses import default_listen
from kvblock_service.config.model import Limits, ServerConfig, Settings
from kvblock_service.config.problems import ConfigError, Origin, sentences
from kvblock_service.config.toml_text import toml_table
from kvblock_service.config.values import default_state_dir, directory, items

PREFIX = "KVBLOCK_"
FILE_VARIABLE = "KVBLOCK_CONFIG"
CLIENT_VARIABLES = (
    "KVBLOCK_ADDRESS",
    "KVBLOCK_TOKEN_FILE",
    "KVBLOCK_TLS",
    "KVBLOCK_TLS_CA",
    "KVBLOCK_CLIENT_CERT",
    "KVBLOCK_CLIENT_KEY",
)
"""Variables of the command line's client commands: no business of a server."""

PLUGIN_PREFIXES = tuple(
    f"{PREFIX}{name}_"
    for name in ("PLUGIN", "VLLM", "SGLANG", "TRTLLM", "TRANSFORMERS", "LMCACHE", "DYNAMO")
)
"""Of variables that belong to plug-ins of engines and the like; no setting is ever named so."""

_SET_BY_KUBERNETES = re.compile(
    r"KVBLOCK_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)"
)
_OTHERS_PREFIX = f"; a variable that is not the server's begins with {PLUGIN_PREFIXES[0]}"
_LISTS = ("pools", "listen")


class _Flat(Settings, Limits, BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)


class LoadedConfig(NamedTuple):
    """A configuration, and for each setting's name the source of its value.

    A source is a flag, a variable, the path of the file, or `default`.
    """

    config: ServerConfig
    sources: dict[str, str]


def load_config(flags: Mapping[str, object], config_file: Path | None = None) -> ServerConfig:
    """The configuration that the flags, the environment and the file make together.

    `flags` has settings by name, as text or typed; None and empty lists count as not given.
    `config_file`: a TOML file; None: the one that KVBLOCK_CONFIG names, if any.

    Raises:
        ConfigError: something is wrong; the text tells all of it.

    """
    return load_with_sources(flags, config_file).config


def load_with_sources(flags: Mapping[str, object], config_file: Path | None = None) -> LoadedConfig:
    """`load_config`, telling also where each value came from."""
    problems: list[str] = []
    origins: dict[str, Origin] = {}
    address = default_listen()
    if address is not None:
        origins["listen"] = Origin("default", [address])
    origins |= _from_file(config_file, problems)
    origins |= _from_environment(problems)
    origins |= _from_flags(flags)
    try:
        config = ServerConfig.model_validate(_nested(origins))
    except ValidationError as error:
        raise ConfigError(problems + sentences(error, origins)) from None
    if problems:
        raise ConfigError(problems)
    sources = {
        name: origins[name].label if name in origins else "default" for name in config.flat()
    }
    return LoadedConfig(config, sources)


def load_state_dir() -> str:
    """The state directory of a server that is configured by the environment alone.

    Raises:
        ConfigError: the file that KVBLOCK_CONFIG names cannot be read, or what is said there or in
            KVBLOCK_STATE_DIR is no directory's path.

    """
    unused: list[str] = []
    found = (_from_file(None, unused) | _from_environment(unused)).get("state_dir")
    if found is None:
        return default_state_dir()
    try:
        return directory(found.value)
    except ValueError as error:
        raise ConfigError([f"{found.label}: {found.value!r} {error}"]) from None


def _from_flags(flags: Mapping[str, object]) -> dict[str, Origin]:
    return {
        name: _origin(name, flag_of(name), value)
        for name, value in flags.items()
        if value is not None and value not in ([], ())
    }


def flag_of(name: str) -> str:
    """The flag that sets a setting."""
    return "--pool" if name == "pools" else f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """The variable that sets a setting."""
    return f"{PREFIX}{name.upper()}"


def _from_environment(problems: list[str]) -> dict[str, Origin]:
    found = EnvSettingsSource(_Flat)()
    known = {variable_of(name) for name in _Flat.model_fields}
    for variable in sorted(os.environ):
        name = variable.upper()
        if name.startswith(PREFIX) and name not in known and not _is_of_others(name):
            bare = name.removeprefix(PREFIX).lower()
            problems.append(
                f"{variable}: no such variable{_guess(bare, variable_of) or _OTHERS_PREFIX}"
            )
    return {name: _origin(name, f"{PREFIX}{name.upper()}", value) for name, value in found.items()}


def _is_of_others(variable: str) -> bool:
    return (
        variable == FILE_VARIABLE
        or variable in CLIENT_VARIABLES
        or variable.startswith(PLUGIN_PREFIXES)
        or _SET_BY_KUBERNETES.fullmatch(variable) is not None
    )


def _from_file(config_file: Path | None, problems: list[str]) -> dict[str, Origin]:
    label = "--config"
    if config_file is None:
        label, named = FILE_VARIABLE, os.environ.get(FILE_VARIABLE)
        if not named:
            return {}
        config_file = Path(named)
    try:
        # Mounted into a container, it often belongs to a user that the container does not know.
        found = toml_table(read_file(config_file, of_any_owner=True).content)
    except UnusableFileError as error:
        raise ConfigError([f"{label} {config_file}: {error}"]) from error
    except ValueError as error:
        raise ConfigError([f"{config_file}: {error}"]) from error
    known = _Flat.model_fields
    path = str(config_file)
    problems += [
        f"{path}: {name}: no such key{_guess(name, str)}" for name in found if name not in known
    ]
    return {name: _origin(name, path, found[name], path) for name in found if name in known}


def _origin(name: str, label: str, value: object, path: str = "") -> Origin:
    if name in _LISTS and isinstance(value, (str, tuple)):
        value = items(value)
    return Origin(label, value, path)


def _nested(origins: Mapping[str, Origin]) -> dict[str, object]:
    values = {name: origin.value for name, origin in origins.items()}
    limits = {name: values.pop(name) for name in Limits.model_fields if name in values}
    return values | {"limits": limits}


def _guess(name: str, shown: Callable[[str], str]) -> str:
    close = difflib.get_close_matches(name, list(_Flat.model_fields), n=1)
    return f"; did you mean {shown(close[0])}?" if close else ""

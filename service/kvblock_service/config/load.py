"""Collects the settings from their sources and makes ServerSettings of them.

Rules:
- `KVBLOCK_*` variables that are neither a setting nor the client's are errors, so that a typing
  mistake is seen. Passed over are those of plug-ins, by their prefixes, and those that Kubernetes
  sets for a service named `kvblock`.
- An empty variable counts as not set.
- A file that cannot be read is the only problem that is reported: the others may follow from it.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from kvblock.trusted_file import UnusableFileError, read_file
from kvblock_service.config.addresses import default_listen
from kvblock_service.config.model import MEMORY_DIR, ServerSettings
from kvblock_service.config.problems import LISTS, ConfigError, Origin, sentences
from kvblock_service.config.toml_text import toml_table
from kvblock_service.config.values import default_state_dir, directory, items

PREFIX = "KVBLOCK_"
FLAGS = {name: f"--{name.replace('_', '-')}" for name in ServerSettings.model_fields} | {
    "pools": "--pool"
}
"""The flag that sets a setting."""
VARIABLES = {name: f"{PREFIX}{name.upper()}" for name in ServerSettings.model_fields}
"""The variable that sets a setting."""
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


class LoadedSettings(NamedTuple):
    """The settings, and for each one's name the source of its value.

    A source is a flag, a variable, the path of the file, or `default`.
    """

    settings: ServerSettings
    sources: dict[str, str]


def load_settings(flags: Mapping[str, object], config_file: Path | None = None) -> LoadedSettings:
    """The settings that the flags, the environment and the file make together.

    `flags` has settings by name, as text or typed; None and empty lists count as not given.
    `config_file`: a TOML file; None: the one that KVBLOCK_CONFIG names, if any. It raises
    ConfigError, whose text has all that is wrong.
    """
    problems: list[str] = []
    origins: dict[str, Origin] = {}
    if address := default_listen():
        origins["listen"] = Origin("default", [address])
    origins |= _from_file(config_file, problems)
    origins |= _from_environment(problems)
    for name, value in flags.items():
        if value is not None and value not in ([], ()):
            origins[name] = _origin(name, FLAGS[name], value)
    try:
        settings = ServerSettings.model_validate(
            {name: origin.value for name, origin in origins.items()}
        )
    except ValidationError as error:
        raise ConfigError(problems + sentences(error, origins)) from None
    if problems:
        raise ConfigError(problems)
    default = Origin("default", None)
    sources = {name: origins.get(name, default).label for name in ServerSettings.model_fields}
    return LoadedSettings(settings, sources)


def load_state_dir() -> str:
    """The state directory of a server that is configured by the environment alone.

    It raises ConfigError: the file that KVBLOCK_CONFIG names cannot be read, or what is said there
    or in KVBLOCK_STATE_DIR is no directory's path.
    """
    return _load_directory("state_dir") or default_state_dir()


def load_memory_dir() -> str:
    """The directory for memory files, as `load_state_dir` has the state directory."""
    return _load_directory("memory_dir") or MEMORY_DIR


def _load_directory(name: str) -> str | None:
    """A directory that the environment alone sets; None: it does not."""
    unused: list[str] = []
    found = (_from_file(None, unused) | _from_environment(unused)).get(name)
    if found is None:
        return None
    try:
        return directory(found.value)
    except ValueError as error:
        raise ConfigError([f"{found.label}: {found.value!r} {error}"]) from None


def _from_environment(problems: list[str]) -> dict[str, Origin]:
    names = {variable: name for name, variable in VARIABLES.items()}
    found = {}
    for variable, value in sorted(os.environ.items()):
        name = names.get(variable.upper())
        if name is not None and value:
            found[name] = _origin(name, VARIABLES[name], value)
        elif name is None and _is_unknown(variable.upper()):
            bare = variable.upper().removeprefix(PREFIX).lower()
            guess = _guess(bare, VARIABLES) or _OTHERS_PREFIX
            problems.append(f"{variable}: no such variable{guess}")
    return found


def _is_unknown(variable: str) -> bool:
    """Whether a variable that sets nothing might be meant to."""
    return (
        variable.startswith(PREFIX)
        and variable not in (FILE_VARIABLE, *CLIENT_VARIABLES)
        and not variable.startswith(PLUGIN_PREFIXES)
        and _SET_BY_KUBERNETES.fullmatch(variable) is None
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
    path = str(config_file)
    problems += [
        f"{path}: {name}: no such key{_guess(name)}" for name in found if name not in FLAGS
    ]
    return {name: _origin(name, path, found[name], path) for name in found if name in FLAGS}


def _origin(name: str, label: str, value: object, path: str = "") -> Origin:
    if name in LISTS and isinstance(value, (str, tuple)):
        value = items(value)
    return Origin(label, value, path)


def _guess(name: str, shown: Mapping[str, str] | None = None) -> str:
    for close in difflib.get_close_matches(name, list(FLAGS), n=1):
        return f"; did you mean {shown[close] if shown else close}?"
    return ""

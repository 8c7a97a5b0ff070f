"""The settings as people read about them: in the help of `kvblock serve`, and in a table.

Rules:
- Everything follows from the fields of ServerSettings; nothing is said here about one of them.
- Backticks stand around what is typed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pydantic_core import PydanticUndefined

from kvblock_service.config.load import FLAGS, VARIABLES
from kvblock_service.config.model import Panel, ServerSettings, Shown
from kvblock_service.config.problems import LISTS
from kvblock_service.config.values import Check, truth


class Described(NamedTuple):
    """One setting.

    `takes`: what is legal, where that can be said in a few words; `default`: empty where there is
    none.
    """

    name: str
    flag: str
    variable: str
    panel: str
    metavar: str
    takes: str
    default: str
    meaning: str
    is_list: bool
    is_switch: bool


def described() -> Iterator[Described]:
    """Every setting, in the order of their panels."""
    found = [_described(name) for name in ServerSettings.model_fields]
    panels = list(dict.fromkeys(one.panel for one in found))
    yield from sorted(found, key=lambda one: panels.index(one.panel))


def settings_table() -> str:
    """The settings as a table in Markdown."""
    rows = ["| Setting | Takes | Default | Meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {one.takes} | {one.default} | {one.meaning} |" for one in described()
    ]
    return "\n".join(rows) + "\n"


def _described(name: str) -> Described:
    field = ServerSettings.model_fields[name]
    check = next((one for one in field.metadata if isinstance(one, Check)), None)
    shown = next((one for one in field.metadata if isinstance(one, Shown)), Shown())
    (panel,) = (one.title for one in field.metadata if isinstance(one, Panel))
    assert field.description is not None
    return Described(
        name=name,
        flag=FLAGS[name],
        variable=VARIABLES[name],
        panel=panel,
        metavar=shown.metavar or (check.metavar if check else ""),
        takes=check.legal if check else f"`{shown.metavar}`",
        default=shown.default or _default(field.default),
        meaning=" ".join(field.description.split()),
        is_list=name in LISTS,
        is_switch=check is truth,
    )


def _default(value: object) -> str:
    if value in (PydanticUndefined, None):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"

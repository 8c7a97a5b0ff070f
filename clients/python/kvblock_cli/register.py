"""How a command is added to the application.

Rules:
- A command that talks to a server has a parameter of the type `Server`, or of `Credentials` where
  it takes the address in its own way. In their place the command line gets the options that they
  are made of: so no such command lacks one, and a command without them cannot connect.
- Numbers are written in plain ASCII digits: what Python's `int` and `float` take besides, `1_0`,
  blanks and digits of other scripts, is wrong usage, in every option of every command.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand
from typer.models import OptionInfo, ParameterInfo

from kvblock_cli.options import Credentials, Server

_GROUPS: tuple[Any, ...] = (Server, Credentials)
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?|[+-]?(inf|nan)", re.I)


def add_command(
    app: typer.Typer,
    command: Callable[..., None],
    *,
    epilog: str = "",
    example: str = "",
    name: str | None = None,
    timeout: float | None = None,
    kind: type[TyperCommand] = TyperCommand,
    more: Sequence[inspect.Parameter] = (),
) -> None:
    """Add a command, with an epilog or with an example alone.

    `timeout` is how many seconds it waits for a server by default, `kind` what it is to
    typer; `more` has options that its `**` parameter takes.
    """
    epilog = epilog or epilog_of(example)
    app.command(name, epilog=epilog, cls=kind)(_with_options(command, timeout, more))


def epilog_of(example: str) -> str:
    """What is below a help text that has an example: what is typed behind `kvblock`."""
    return f"Example: [bold]kvblock {example}[/]"


def _with_options(
    command: Callable[..., None], timeout: float | None, more: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """A command whose parameters are options only, one for each that a group is made of."""
    own = inspect.signature(command, eval_str=True)
    groups = {
        name: one.annotation for name, one in own.parameters.items() if one.annotation in _GROUPS
    }
    members = {
        name: inspect.signature(group, eval_str=True).parameters.values()
        for name, group in groups.items()
    }

    @functools.wraps(command)
    def extended(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in members[name]})
        command(**values)

    parameters = [
        one
        for name, one in own.parameters.items()
        if name not in groups and one.kind is not one.VAR_KEYWORD
    ]
    parameters += [one for name in groups for one in members[name]]
    parameters = [_keyword(one, timeout) for one in (*parameters, *more)]
    extended.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    extended.__annotations__ = {one.name: one.annotation for one in parameters}
    return extended


def _keyword(parameter: inspect.Parameter, timeout: float | None) -> inspect.Parameter:
    default = parameter.default
    if parameter.name == "timeout" and timeout is not None:
        default = timeout
    return parameter.replace(
        kind=inspect.Parameter.KEYWORD_ONLY,
        annotation=_strict(parameter.annotation),
        default=default,
    )


def _strict(annotation: Any) -> Any:
    """An option's type whose numbers are read by `number_parser`."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *rest = get_args(annotation)
    number = _number_in(kind)
    if number is None:
        return annotation
    info = copy.copy(next(one for one in rest if isinstance(one, ParameterInfo)))
    info.parser = number_parser(number, info.min, info.max)
    if isinstance(info, OptionInfo):
        info.metavar = info.metavar or "N"
    info.min = info.max = None
    return Annotated[kind, info]


def _number_in(kind: Any) -> Any:
    """The type of a number in an option's type, None where there is none."""
    if kind in (int, float):
        return kind
    return next(filter(None, map(_number_in, get_args(kind))), None)


def number_parser(
    kind: type[int] | type[float], low: float | None, high: float | None
) -> Callable[[object], Any]:
    """What reads a number as it was typed, from `low` to `high`; None: there is no such bound."""
    pattern, word = (_WHOLE, "a valid integer") if kind is int else (_DECIMAL, "a valid number")

    def read(typed: Any) -> Any:
        # A default comes as what it is.
        if isinstance(typed, str) and not pattern.fullmatch(typed):
            raise typer.BadParameter(f"must be {word}, {typed!r} is none")
        number = kind(typed)
        if low is not None and not number >= low:
            raise typer.BadParameter(f"{number} must be at least {low}")
        if high is not None and not number <= high:
            raise typer.BadParameter(f"{number} must be at most {high}")
        return number

    return read

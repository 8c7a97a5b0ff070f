"""`kvblock allocate`, `free`, `table` and `can-allocate`: one call about one sequence.

Rules:
- A refusal is an answer: it goes to stdout, and the exit code is 1.
- In JSON the answers are those of the proto: `allocate` prints `{"granted": {...}}` or
  `{"refused": {...}}`, the others the fields of the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli.failures import REFUSED, note_change
from kvblock_cli.options import Engine, Json, Pool, SequenceId, Server, option
from kvblock_cli.output import number, print_answer, print_json, say
from kvblock_cli.register import add_command

if TYPE_CHECKING:
    from kvblock import Granted, Refused

NumBlocks = Annotated[int, typer.Argument(help="How many blocks.")]
MaxWait = Annotated[
    float | None,
    option(
        "SECONDS",
        "How long to wait for blocks that are not free now, before the refusal."
        " Default: not at all.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    add_command(app, allocate, epilog="Example: [bold]kvblock allocate 10 2 --max-wait 1.5[/]")
    add_command(app, free, epilog="Example: [bold]kvblock free 10[/]")
    add_command(app, block_table, name="table", epilog="Example: [bold]kvblock table 10 --json[/]")
    add_command(
        app, can_allocate, epilog="Example: [bold]kvblock can-allocate 64 && echo enough[/]"
    )


def allocate(
    server: Server,
    sequence_id: SequenceId,
    num_blocks: NumBlocks = 1,
    max_wait: MaxWait = None,
    pool: Pool = "",
    engine: Engine = "default",
    as_json: Json = False,
) -> None:
    """Append blocks to a sequence's table.

    All that were asked for, or none. Exits with 1 when the pool refuses.
    """
    from kvblock import Granted

    with server.connect(pool, engine) as kv:
        answer = kv.allocate(sequence_id, num_blocks, max_wait=max_wait)
    granted = isinstance(answer, Granted)
    if granted:
        note_change()
    kind = "granted" if granted else "refused"
    print_answer({kind: answer}, Text.from_markup(allocation_text(answer)), as_json=as_json)
    if not granted:
        raise typer.Exit(REFUSED)


def free(
    server: Server,
    sequence_id: SequenceId,
    pool: Pool = "",
    engine: Engine = "default",
    as_json: Json = False,
) -> None:
    """Return all blocks of a sequence to the pool.

    A sequence that has none is fine: nothing happens.
    """
    with server.connect(pool, engine) as kv:
        freed = kv.free_returning_count(sequence_id)
        note_change()
    print_answer({"freed_blocks": freed}, f"freed {counted(freed)}", as_json=as_json)


def block_table(
    server: Server,
    sequence_id: SequenceId,
    pool: Pool = "",
    engine: Engine = "default",
    as_json: Json = False,
) -> None:
    """Show the blocks of a sequence, in order.

    Exits with 1 when the sequence has none.
    """
    with server.connect(pool, engine) as kv:
        answer = kv.get_block_table(sequence_id)
    if as_json:
        print_json(answer)
        return
    place = f"of {number(answer.block_size)} tokens on device {answer.device_id}"
    say(f"{counted(len(answer.block_numbers))} {place}", "bold")
    say(" ".join(map(str, answer.block_numbers)))


def can_allocate(
    server: Server,
    num_blocks: NumBlocks = 1,
    pool: Pool = "",
    engine: Engine = "default",
    as_json: Json = False,
) -> None:
    """Ask whether so many blocks are free now.

    Nothing is reserved. Exits with 1 when they are not.
    """
    with server.connect(pool, engine) as kv:
        answer = kv.can_allocate(num_blocks)
    word = "[green]yes[/]" if answer else "[red]no[/]"
    shown = Text.from_markup(f"{word}, {number(answer.free_blocks)} free")
    print_answer(answer, shown, as_json=as_json)
    if not answer:
        raise typer.Exit(REFUSED)


def counted(blocks: int) -> str:
    """A number of blocks in words."""
    return f"{number(blocks)} {'block' if blocks == 1 else 'blocks'}"


def allocation_text(answer: Granted | Refused) -> str:
    """The answer to an allocation, for people."""
    from kvblock import Granted

    if isinstance(answer, Granted):
        blocks = " ".join(map(str, answer.block_numbers))
        return (
            f"[green]granted[/] {counted(len(answer.block_numbers))}: {blocks}\n"
            f"of {number(answer.block_size)} tokens on device {answer.device_id};"
            f" the table has {counted(answer.table_length)} now"
        )
    again = "trying again cannot help"
    if answer.retry_after is not None:
        again = f"try again in {answer.retry_after:g} s"
    return (
        f"[red]refused[/], {answer.reason.name}: {number(answer.needed)} needed,"
        f" {number(answer.free_blocks)} free; {again}"
    )

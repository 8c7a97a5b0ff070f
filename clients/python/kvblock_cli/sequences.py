"""`kvblock allocate`, `free`, `table`, `can-allocate` and `sequences`: what sequences hold.

Rules:
- A refusal is an answer: it goes to stdout, and the exit code is 1.
- In JSON the answers are those of the proto: `allocate` prints `{"granted": {...}}` or
  `{"refused": {...}}`, the others the fields of the response.
- Sequences are fetched and printed page by page, so that a listing of any length needs little
  memory and starts at once; also in JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli.failures import REFUSED, note_change
from kvblock_cli.options import AnyEngine, Engine, Json, Pool, SequenceId, Server, option
from kvblock_cli.output import (
    counted,
    cut,
    number,
    print_answer,
    print_json,
    print_rows,
    say,
    terminal_width,
)

if TYPE_CHECKING:
    from kvblock import Granted, Refused, SequenceInfo

_BEFORE_ENGINE = 46
"""Characters in a row of `sequences` before the engine's name."""

NumBlocks = Annotated[int, typer.Argument(help="How many blocks.")]
MaxWait = Annotated[
    float | None,
    option(
        "SECONDS",
        "How long to wait for blocks that are not free now, before the refusal."
        " Default: not at all.",
    ),
]
WithBlocks = Annotated[bool, typer.Option("--blocks", help="With their blocks, in table order.")]


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
    print_answer({kind: answer}, Text.from_markup(_allocation_text(answer)), as_json=as_json)
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


def table(
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
    dropped = f", {number(answer.first_index)} dropped before" if answer.first_index else ""
    say(f"{counted(len(answer.block_numbers))} {place}{dropped}", "bold")
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


def sequences(
    server: Server,
    pool: Pool = "",
    engine: AnyEngine = "",
    with_blocks: WithBlocks = False,
    as_json: Json = False,
) -> None:
    """List the sequences of a pool, in order of engine and id.

    FIRST is the index of a table's first block: how many blocks it has dropped at the head.
    """
    with server.connect(pool) as kv:
        rows = kv.list_sequences(engine=engine, with_block_numbers=with_blocks)
        width = terminal_width()
        left = None if width is None else width - _BEFORE_ENGINE

        def line(row: SequenceInfo) -> str:
            blocks = "".join(f" {block}" for block in row.block_numbers)
            engine = cut(row.engine, left)
            shown = f"{number(row.num_blocks):>10}  {number(row.first_index):>10}"
            shown += f"  {row.sequence_id:>20}  {engine}"
            return f"{shown}{blocks and ' '}{blocks}"

        head = f"{'BLOCKS':>10}  {'FIRST':>10}  {'SEQUENCE':>20}  ENGINE"
        print_rows("sequences", rows, head, line, as_json=as_json)


def _allocation_text(answer: Granted | Refused) -> str:
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

"""`kvblock replay` and `kvblock trace generate`.

Rules:
  - What can be found wrong without a server is found first: files, options, the plot's library.
  - The table goes to standard output, the progress bar to standard error. With `--json -` standard
    output is the JSON alone and the table goes to standard error.
  - Exit codes: 0 done; 1 the replay failed or left the server in disorder; 2 wrong usage, a broken
    trace, pools that do not fit; 3 no server there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import Enum
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from kvblock.errors import DeadlineExceededError, KVBlockError, UnavailableError
from kvblock.replay import plot
from kvblock.replay.checks import PoolsDifferError
from kvblock.replay.driver import Run
from kvblock.replay.figures import Parameters, document
from kvblock.replay.generate import RATE_MAX, Synthetic, generate
from kvblock.replay.ledger import ReplayError
from kvblock.replay.modes import SHARED_POOL, Mode, Setup, make_setup
from kvblock.replay.progress import progress_bars
from kvblock.replay.report import show
from kvblock.replay.session import replay as run_replay
from kvblock.replay.trace import Trace, TraceError, read_trace

_REFUSED, _USAGE, _UNREACHABLE = 1, 2, 3
_BLOCKS_MAX = 2**31 - 1
_BUNDLED_NAME = "bundled trace"
_STDOUT = Path("-")
_DEFAULTS = Synthetic()


class Modes(str, Enum):
    """What `--mode` takes."""

    SHARED = "shared"
    SPLIT = "split"
    BOTH = "both"


TraceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[TRACE]",
        help="Azure's LLM inference CSV or Mooncake's JSONL; without it the bundled trace.",
        show_default=False,
    ),
]
EnginesOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Engines; request i goes to engine i mod this.")
]
BlocksOption = Annotated[
    int, typer.Option(min=1, max=_BLOCKS_MAX, help="Blocks of all pools of a mode together.")
]
BlockSizeOption = Annotated[int, typer.Option(min=1, help="Token slots per block.")]
ModeOption = Annotated[
    Modes,
    typer.Option(help="One pool for all engines, an even share for each, or one after the other."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first so many requests of the file.", show_default=False),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="A running server: unix:PATH or HOST:PORT, with empty pools of the right sizes named "
        "shared (see --pool) and split-0, split-1, ... Without it a server of its own.",
        show_default=False,
    ),
]
PoolOption = Annotated[
    str | None,
    typer.Option(help=f"With --address: the shared pool's name, if not {SHARED_POOL}."),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Write all figures as JSON; - is standard output.", metavar="FILE"),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", help="Draw pool use over time as a PNG.", metavar="FILE.png"),
]


def register(app: typer.Typer) -> None:
    """Add `replay` and `trace generate` to an application."""
    app.command("replay")(replay)
    traces = typer.Typer(no_args_is_help=True, help="Make request traces.")
    traces.command("generate")(trace_generate)
    app.add_typer(traces, name="trace")


def replay(
    trace: TraceArgument = None,
    engines: EnginesOption = 3,
    blocks: BlocksOption = 2048,
    block_size: BlockSizeOption = 16,
    mode: ModeOption = Modes.BOTH,
    limit: LimitOption = None,
    address: AddressOption = None,
    pool: PoolOption = None,
    json_file: JsonOption = None,
    plot_file: PlotOption = None,
) -> None:
    """Replay a request trace through engines that share one pool, and through fixed shares of it.

    Each engine is a continuous-batching simulator in virtual time that makes a real Step call per
    iteration. The virtual figures are the same every time; latencies are this run's.

    Exit codes: 0 done; 1 the replay failed or left blocks held; 2 wrong usage or a broken trace; 3
    server unreachable.
    """
    _check_files(json_file, plot_file)
    if pool is not None and address is None:
        _fail(_USAGE, "--pool names a pool of the server at --address, which is missing")
    modes = [Mode(mode.value)] if mode is not Modes.BOTH else list(Mode)
    if Mode.SPLIT in modes and blocks < engines:
        _fail(_USAGE, f"--blocks {blocks} is less than a block for each of {engines} engines")
    name, found = _read(trace, limit)
    setups = [make_setup(each, engines, blocks, block_size, pool or SHARED_POOL) for each in modes]
    runs = _run(found, setups, address)
    parameters = Parameters(
        name,
        found.format,
        len(found.requests),
        limit,
        engines,
        blocks,
        block_size,
        tuple(each.value for each in modes),
    )
    _show(parameters, runs, to_stderr=json_file == _STDOUT)
    if json_file is not None:
        _write(json_file, [json.dumps(document(parameters, runs), indent=2) + "\n"])
    if plot_file is not None:
        _draw(plot_file, parameters, runs)


def trace_generate(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ],
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed makes the same trace.")
    ] = _DEFAULTS.seed,
    requests: Annotated[int, typer.Option(min=1, help="Requests to make.")] = _DEFAULTS.requests,
    engines: Annotated[
        int, typer.Option(min=1, help="Engines among which the load moves.")
    ] = _DEFAULTS.engines,
    rate: Annotated[
        float, typer.Option(help=f"Mean requests per second, above 0, at most {RATE_MAX:g}.")
    ] = _DEFAULTS.rate,
    phase: Annotated[
        int, typer.Option(min=1, help="Seconds for which one engine is the busy one.")
    ] = _DEFAULTS.phase,
) -> None:
    """Make a synthetic trace in Azure's format: bursts, heavy tails, and load that moves.

    With all defaults it is the bundled trace.

    Exit codes: 0 done; 1 the file cannot be written; 2 wrong usage.
    """
    try:
        lines = list(generate(Synthetic(seed, requests, engines, rate, phase)))
    except ValueError as error:
        _fail(_USAGE, str(error))
    _write(output, lines)


def _fail(code: int, text: str) -> NoReturn:
    typer.echo(f"kvblock: {text}", err=True)
    raise typer.Exit(code)


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    for option, path in (("--json", json_file), ("--plot", plot_file)):
        if path is None or path == _STDOUT:
            continue
        if path.is_dir() or not path.parent.is_dir():
            _fail(_USAGE, f"{option} {path}: is no file in a directory that exists")
    if plot_file == _STDOUT:
        _fail(_USAGE, "--plot -: a picture goes to a file")
    if plot_file is not None:
        try:
            plot.require_matplotlib()
        except plot.PlotError as error:
            _fail(_USAGE, str(error))


def _read(path: Path | None, limit: int | None) -> tuple[str, Trace]:
    try:
        if path is not None:
            return path.name, read_trace(path, limit)
        with as_file(files("kvblock.replay").joinpath("bundled.csv")) as bundled:
            return _BUNDLED_NAME, read_trace(bundled, limit)
    except TraceError as error:
        _fail(_USAGE, str(error))


def _run(trace: Trace, setups: list[Setup], address: str | None) -> list[Run]:
    try:
        with progress_bars(len(trace.requests)) as begin:
            return run_replay(trace.requests, setups, address, begin)
    except PoolsDifferError as error:
        _fail(_USAGE, str(error))
    except (UnavailableError, DeadlineExceededError) as error:
        _fail(_UNREACHABLE, str(error))
    except (KVBlockError, ReplayError) as error:
        _fail(_REFUSED, str(error))


def _show(parameters: Parameters, runs: list[Run], *, to_stderr: bool) -> None:
    console = Console(stderr=to_stderr)
    show(console, parameters, runs)
    console.print("Audit clean, nothing held.", style="green")


def _write(path: Path, lines: Iterable[str]) -> None:
    try:
        if path == _STDOUT:
            sys.stdout.writelines(lines)
            sys.stdout.flush()
        else:
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        _fail(_REFUSED, f"{path}: {error.strerror or error}")


def _draw(path: Path, parameters: Parameters, runs: list[Run]) -> None:
    try:
        plot.draw(path, parameters, runs)
    except OSError as error:
        _fail(_REFUSED, f"{path}: {error.strerror or error}")

"""`kvblock replay` and `kvblock trace generate`.

Rules:
- What can be found wrong without a server is found first: files, options, the plot's library.
- The table goes to stdout, the progress bar to stderr. With `--json` stdout is the JSON alone, and
  the table goes to stderr.
- A broken trace and pools that do not fit are wrong usage; a replay whose sums do not come out, or
  that leaves blocks held, is unhealthy.
- KVBLOCK_ADDRESS is not read: a replay wants pools made for it, so a server has to be named.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kvblock.extras import install_hint
from kvblock_cli.failures import REFUSED, UNREACHABLE, USAGE, CommandError, cannot_write, write_file
from kvblock_cli.options import Credentials, Json, option
from kvblock_cli.output import console, error_console, print_json
from kvblock_cli.register import add_command
from kvblock_replay.generate import RATE_MAX, Synthetic, generate
from kvblock_replay.modes import SHARED_POOL, Mode, Setup, make_setup
from kvblock_replay.units import TimeUnit

if TYPE_CHECKING:
    from kvblock_replay.driver import Run
    from kvblock_replay.figures import Parameters
    from kvblock_replay.trace import Trace

_BLOCKS_MAX = 2**31 - 1
_MODES = {
    "both": [Mode.SHARED, Mode.SPLIT],
    "hoarding": [Mode.RECALL, Mode.HOARD, Mode.SPLIT],
}
_STDOUT = Path("-")
_DEFAULTS = Synthetic()


def _number(metavar: str, text: str, low: int | None = None, high: int | None = None) -> Any:
    return option(metavar, text, min=low, max=high, show_default=True)


TraceFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[TRACE]",
        help="A request trace: CSV of Azure, BurstGPT or Vidur; JSON lines of Mooncake,"
        " qwen-bailian and others with lengths; also as .gz or .zst. Default: the trace that comes"
        " with kvblock.",
        show_default=False,
    ),
]
Engines = Annotated[int, _number("N", "Engines. Request i goes to engine i mod N.", 1, 1024)]
Blocks = Annotated[int, _number("M", "Blocks, over all pools of a mode.", 1, _BLOCKS_MAX)]
BlockSize = Annotated[int, _number("TOKENS", "Token slots per block.", 1, 2**32 - 1)]
ModeOption = Annotated[
    Literal["shared", "split", "both", "hoarding"],
    typer.Option(
        help="One pool for all, an even share for each engine, or one after the other; hoarding:"
        " engines with caches on one pool, with recall and without, and on even shares."
    ),
]
Limit = Annotated[int | None, option("N", "Only the first N requests of the file.", min=1)]
UnitOption = Annotated[
    TimeUnit | None,
    option(
        None,
        "What the trace's timestamps count, where they are numbers. Default: what is certain from"
        " the format and the numbers.",
        "--time-unit",
    ),
]
Address = Annotated[
    str | None,
    option(
        "ADDRESS",
        "A running server, unix:PATH or HOST:PORT, with empty pools of the right sizes: shared"
        " (see --pool), split-0, split-1, ... Default: a server of its own.",
        "--address",
        "-a",
    ),
]
Pool = Annotated[
    str | None, option("NAME", f"With --address: the shared pool. Default: {SHARED_POOL}.")
]
JsonFile = Annotated[
    Path | None, option("FILE", "Write the figures as JSON, too; - is stdout.", "--output", "-o")
]
PlotFile = Annotated[Path | None, option("FILE.png", "Draw pool use over time.", "--plot")]
Output = Annotated[Path, option("FILE", "Where to; - is stdout.", "--output", "-o")]
Seed = Annotated[int, _number("S", "The same seed makes the same trace.", 0)]
Requests = Annotated[int, _number("N", "Requests to make.", 1)]
LoadEngines = Annotated[int, _number("N", "Engines among which the load moves.", 1)]
Rate = Annotated[float, _number("R", f"Mean requests a second, above 0, at most {RATE_MAX:g}.")]
Phase = Annotated[int, _number("SECONDS", "How long one engine stays the busy one.", 1)]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    add_command(
        app,
        replay,
        epilog="Figures in virtual time are the same every time; latencies are this run's."
        "\n\nExample: [bold]kvblock replay trace.csv --blocks 4096 --plot use.png[/]",
    )
    traces = typer.Typer(no_args_is_help=True, help="Make request traces.")
    example = "trace generate --seed 7 -o trace.csv"
    add_command(traces, trace_generate, name="generate", example=example)
    app.add_typer(traces, name="trace")


def replay(
    credentials: Credentials,
    trace: TraceFile = None,
    engines: Engines = 3,
    blocks: Blocks = 2048,
    block_size: BlockSize = 16,
    mode: ModeOption = "both",
    limit: Limit = None,
    time_unit: UnitOption = None,
    address: Address = None,
    pool: Pool = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
    as_json: Json = False,
) -> None:
    """Replay a trace: engines on one pool, then on fixed shares."""
    _check_files(json_file, plot_file)
    if pool is not None and address is None:
        raise typer.BadParameter("--pool goes with --address")
    modes = _MODES.get(mode) or [Mode(mode)]
    if Mode.SPLIT in modes and blocks < engines:
        raise typer.BadParameter(f"--blocks {blocks} is no block for each of {engines} engines")
    name, found = _read(trace, limit, time_unit)
    setups = [make_setup(each, engines, blocks, block_size, pool or SHARED_POOL) for each in modes]
    runs = _run(found, setups, address, credentials)
    from kvblock_replay.figures import Parameters

    parameters = Parameters(
        trace=name,
        format=found.format,
        requests=len(found.requests),
        limit=limit,
        engines=engines,
        blocks=blocks,
        block_size=block_size,
        modes=tuple(each.value for each in modes),
    )
    _report(parameters, runs, json_file, plot_file, as_json=as_json)


def trace_generate(
    output: Output,
    seed: Seed = _DEFAULTS.seed,
    requests: Requests = _DEFAULTS.requests,
    engines: LoadEngines = _DEFAULTS.engines,
    rate: Rate = _DEFAULTS.rate,
    phase: Phase = _DEFAULTS.phase,
) -> None:
    """Make a trace: bursts, heavy tails, and load that moves from engine to engine."""
    try:
        text = "".join(generate(Synthetic(seed, requests, engines, rate, phase)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if output == _STDOUT:
        sys.stdout.write(text)
    else:
        write_file(output, text)


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    for name, path in (("--output", json_file), ("--plot", plot_file)):
        if path is None or path == _STDOUT:
            continue
        if path.is_dir() or not path.parent.is_dir():
            raise typer.BadParameter(f"{name} {path}: is no file in a directory that exists")
    if plot_file == _STDOUT:
        raise typer.BadParameter("--plot -: a picture goes to a file")
    if plot_file is not None:
        try:
            importlib.import_module("matplotlib.figure")
        except ImportError as error:
            text = f"a picture needs matplotlib: {error}"
            raise CommandError(USAGE, text, install_hint("plot")) from error


def _read(path: Path | None, limit: int | None, time_unit: TimeUnit | None) -> tuple[str, Trace]:
    from kvblock_replay.trace import TraceError, read_trace

    try:
        if path is not None:
            found = read_trace(path, limit, time_unit)
            if found.time_unit is not None and time_unit is None:
                error_console().print(f"timestamps are read as {found.time_unit.word}")
            return path.name, found
        with as_file(files("kvblock_replay").joinpath("bundled.csv")) as bundled:
            return "bundled trace", read_trace(bundled, limit, time_unit)
    except TraceError as error:
        raise CommandError(USAGE, str(error)) from error


def _run(
    trace: Trace, setups: list[Setup], address: str | None, credentials: Credentials
) -> list[Run]:
    from kvblock.errors import DeadlineExceededError, UnavailableError
    from kvblock_replay.checks import PoolsDifferError, ReplayError
    from kvblock_replay.driver import Access
    from kvblock_replay.driver import replay as run
    from kvblock_replay.interrupt import signals_wait
    from kvblock_replay.progress import progress_bars

    server = None
    if address is not None:
        server = Access(address, credentials.token(), credentials.tls_settings())
    try:
        with signals_wait() as check, progress_bars(len(trace.requests), check) as begin:
            return run(trace.requests, setups, server, begin)
    except PoolsDifferError as error:
        raise CommandError(USAGE, str(error), error.hint) from error
    except (UnavailableError, DeadlineExceededError) as error:
        raise CommandError(UNREACHABLE, str(error)) from error
    except ReplayError as error:
        raise CommandError(REFUSED, str(error)) from error


def _report(
    parameters: Parameters,
    runs: list[Run],
    json_file: Path | None,
    plot_file: Path | None,
    *,
    as_json: bool,
) -> None:
    from kvblock_replay.figures import document
    from kvblock_replay.report import show

    as_json = as_json or json_file == _STDOUT
    out = error_console() if as_json else console()
    show(out, parameters, runs)
    out.print("Audit clean, nothing held.", style="green")
    if as_json:
        print_json(document(parameters, runs))
    if json_file is not None and json_file != _STDOUT:
        write_file(json_file, json.dumps(document(parameters, runs), indent=2) + "\n")
    if plot_file is not None:
        from kvblock_replay.plot import draw

        try:
            draw(plot_file, parameters, runs)
        except OSError as error:
            raise cannot_write(plot_file, error) from error

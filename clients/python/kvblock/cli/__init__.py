"""The command line.

Rules:
- Exit code 0: done. 1: refused, or something is unhealthy. 2: wrong usage. 3: server unreachable.
  4: the output cannot be written. 130 and 141: ended by Ctrl-C, or because nobody reads the output
  any more; both without a word.
- Answers go to stdout; errors go to stderr as `error: ...` and a hint, without a traceback.
- `--json` prints one object with the field names of the proto; numbers are numbers.
- This module loads in the plain install, which has no typer and no rich.
- The standard streams are set up before anything else is loaded: see `standard_streams`.
- gRPC is set up before it is loaded, by variables that whoever starts the program may set himself.
"""

import os
import sys

from kvblock.cli import standard_streams

_GRPC = {
    # What gRPC's own core writes to stderr repeats what the exceptions say, in its own words.
    "GRPC_VERBOSITY": "NONE",
    # Sockets are polled by the thread that waits for them: without a hand-over between threads a
    # call takes a third less time. Releases of gRPC that do not know this experiment ignore it.
    "GRPC_EXPERIMENTS": "-event_engine_poller_for_python",
}


def main() -> None:
    """Run the command that the program's arguments name, and exit with its code."""
    standard_streams.set_up()
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)
    try:
        from kvblock.cli.app import run

        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        extra = "server" if sys.argv[1:2] == ["serve"] else "cli"
        sys.stderr.write(
            f"error: the command line needs {error.name}, which is not installed\n"
            f"hint: pip install 'kvblock[{extra}]'\n"
        )
        sys.exit(2)

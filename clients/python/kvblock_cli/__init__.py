"""The command line.

Rules:
- Exit code 0: done. 1: refused, or something is unhealthy. 2: wrong usage. 3: server unreachable.
  4: the output cannot be written. 130 and 141: ended by Ctrl-C, or because nobody reads the output
  any more; both without a word.
- Answers go to stdout; errors go to stderr as `error: ...` and a hint, without a traceback.
- `--json` prints one object with the field names of the proto, errors too: docs/json.md has the
  shapes. It is a flag everywhere; files are named by `--output`.
- This module loads in the plain install, which has no typer and no rich.
- The standard streams are set up before anything else is loaded: see `standard_streams`.
- gRPC is set up before it is loaded, by variables that whoever starts the program may set himself.
"""

import importlib
import json
import os
import sys

from kvblock.extras import install_hint
from kvblock_cli import standard_streams

_GRPC = {
    # What gRPC's own core writes to stderr repeats what the exceptions say, in its own words.
    "GRPC_VERBOSITY": "NONE",
    # Sockets are polled by the thread that waits for them: without a hand-over between threads a
    # call takes a third less time. Releases of gRPC that do not know this experiment ignore it.
    "GRPC_EXPERIMENTS": "-event_engine_poller_for_python",
}


def main(application: str = "kvblock_cli.app", program: str = "kvblock") -> None:
    """Run the command that the program's arguments name, and exit with its code.

    `application` is the module whose `make_app` gives the commands of the program of that name.
    """
    standard_streams.set_up()
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)
    try:
        from kvblock_cli.failures import run

        sys.exit(run(importlib.import_module(application).make_app(), program))
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        message = f"the command line needs {error.name}, which is not installed"
        hint = install_hint("server" if sys.argv[1:2] == ["serve"] else "cli")
        if "--json" in sys.argv:
            answer = {"reason": None, "message": message, "hint": hint, "exit_code": 2}
            sys.stdout.write(f"{json.dumps(answer)}\n")
        else:
            sys.stderr.write(f"error: {message}\nhint: {hint}\n")
        sys.exit(2)

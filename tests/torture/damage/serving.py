"""Starts of a real `kvblock serve` from a state directory, judged as those in process are.

Rules:
- The state is what the server shows over the wire.
- A refusal is exit code 1 and the problem that the log tells; a traceback is none.
"""

import json
from hashlib import sha256
from pathlib import Path

import kvblock
from tests.fixtures.history import serving
from tests.fixtures.observed import observed
from tests.torture.damage.starting import HANG_SECONDS, Outcome, Start


class ServerStarter:
    """Starts servers; see `Starting`."""

    def attempt(self, root: Path, start: Start, *, read: bool = True) -> Outcome:
        """Start one, look at its pools, and stop it."""
        del read  # A command of its own, and no part of a start.
        arguments = ("--durability", start.durability)
        server = serving(root, *arguments, "--log-format", "json", start_timeout=HANG_SECONDS)
        try:
            with server:
                shown = json.dumps(observed(server.address), sort_keys=True)
        except kvblock.ServerStartError:
            return _refusal(server)
        return Outcome("opened", sha256(shown.encode()).hexdigest(), facts=_warnings(server))


def _refusal(server: kvblock.EmbeddedServer) -> Outcome:
    if server.process.returncode < 0:
        return Outcome("hung", f"for {HANG_SECONDS} s")
    if server.process.returncode != 1 or "Traceback" in server.stderr:
        return Outcome("died", server.stderr[-500:])
    problem = json.loads(server.stderr.splitlines()[-1])["problem"]
    return Outcome("refused", problem)


def _warnings(server: kvblock.EmbeddedServer) -> tuple[str, ...]:
    lines = [json.loads(line) for line in server.stderr.splitlines() if line.startswith("{")]
    return tuple(line["event"] for line in lines if line["level"] not in ("info", "debug"))

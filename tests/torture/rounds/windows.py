"""Sliding-window attention: sequences that grow at the tail and are trimmed at the head.

Rules:
- A sequence has a window of some blocks. Each step lets some grow, and trims what has left the
  window of those that have grown beyond it; now and then it also takes back blocks at the tail, as
  speculative decoding does.
- What a table has, and how many blocks it has dropped, is known here apart from the model.
- Growth that is refused is asked for again, unless the sequence is given up, as by a preemption.
"""

from kvblock_service.core.commands import Attach, Attached, Step, Stepped, StepPolicy
from tests.torture.rounds.play import Player, show_progress

ENGINES = ("a", "b", "c")
SEQUENCES, SEQUENCES_MAX = 5, 6
"""Of each engine; together they want more than the pool has. So many it may have."""
GIVEN_UP = 0.1
"""Of the steps whose growth was refused, so many give a sequence up."""
TTL_MS = 3_600_000


class Window:
    """One sequence: its table and what it has dropped, as far as it was answered."""

    def __init__(self, size: int, length: int) -> None:
        self.size = size
        self.left = length
        self.table: list[int] = []
        self.dropped = 0


class Windows:
    """Plays sliding windows; `step` makes one step of one engine."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._random = player.random
        self._windows: dict[str, dict[int, Window]] = {}
        self._epochs: dict[str, int] = {}
        self._serial = 0

    def attach(self) -> None:
        """Let all engines begin."""
        for engine in ENGINES:
            attached = self._player.carry_out(Attach(engine, 0, "", False, TTL_MS, 0))
            assert isinstance(attached, Attached)
            self._epochs[engine] = attached.epoch
            self._windows[engine] = {}

    def step(self) -> int:
        """One step; answers how many sequences it has trimmed at the head."""
        random = self._random
        engine = random.choice(ENGINES)
        windows = self._windows[engine]
        while len(windows) < SEQUENCES:
            self._serial += 1
            windows[self._serial] = Window(random.randint(1, 6), random.randint(5, 200))
        ended = [one for one, window in windows.items() if window.left <= 0 and window.table]
        grows = {one: random.choice((1, 1, 1, 2, 3)) for one in windows if random.random() < 0.8}
        trims: dict[int, tuple[int, int]] = {}
        for one, window in windows.items():
            surplus = max(0, len(window.table) - window.size)
            back = int(len(window.table) - surplus > 1 and random.random() < 0.1)
            if one not in ended and (surplus or back):
                trims[one] = (surplus, back)
        allocate = [one for one in grows if one not in ended]
        step = Step(
            *(engine, self._epochs[engine], "", 0, ended, allocate),
            [grows[one] for one in allocate],
            StepPolicy.IN_ORDER_UNTIL_REFUSED,
            trim_ids=list(trims),
            trim_heads=[head for head, _ in trims.values()],
            trim_tails=[tail for _, tail in trims.values()],
        )
        stepped = self._player.carry_out(step)
        assert isinstance(stepped, Stepped)
        self._answered(windows, step, stepped)
        if stepped.refused and random.random() < GIVEN_UP:
            random.choice(list(windows.values())).left = 0
        self._compare(engine)
        return sum(head > 0 for head, _ in trims.values())

    def _answered(self, windows: dict[int, Window], step: Step, stepped: Stepped) -> None:
        for one in step.free_ids:
            del windows[one]
        trims = zip(step.trim_ids, step.trim_heads, step.trim_tails, strict=True)
        counts = []
        for one, head, tail in trims:
            window = windows[one]
            window.table = window.table[head : len(window.table) - tail]
            window.dropped += head
            counts.append(head + tail)
        assert stepped.trimmed_counts == counts
        blocks = iter(stepped.blocks)
        for one, count in list(zip(step.allocate_ids, step.num_blocks, strict=True))[
            : stepped.granted
        ]:
            windows[one].table += [next(blocks) for _ in range(count)]
            windows[one].left -= count
        assert next(blocks, None) is None

    def _compare(self, engine: str) -> None:
        model = self._player.subject.model
        windows = self._windows[engine]
        tables = {one: window.table for one, window in windows.items() if window.table}
        assert model.tables.get(engine, {}) == tables
        dropped = {
            (engine, one): window.dropped
            for one, window in windows.items()
            if window.table and window.dropped
        }
        assert {key: n for key, n in model.dropped.items() if key[0] == engine} == dropped


def slide(player: Player, trims: int) -> None:
    """Play until so many tables were trimmed at the head; raises Failure."""
    windows = Windows(player)
    done = 0

    def step() -> None:
        nonlocal done
        done += windows.step()
        if player.random.random() < player.subject.terms.restarts:
            player.counts["restarts"] += 1
            player.subject.snapshot()
            player.subject.restart()

    player.one(1, "attach", windows.attach)
    while done < trims:
        # A failure counts the trims: so many of them lead to this step again.
        player.one(done + 1, "sliding windows", step)
        player.counts["steps"] += 1
        show_progress("trims", done, trims)
    player.counts["trims at the head"] += done
    player.one(trims, "the end", player.give_all_back)

"""A lease whose acquired blocks come from a `kvblock.BlockPool`.

Rules:
- Batches are taken from its stash and given back to it; the stash's own blocks are in no table.
- What the stash answers without a call is written down as local: it does not prove that the server
  still knew the lease then.
- An end in order gives the stash back before the detach, which then frees what is in tables and
  nothing else.
"""

from __future__ import annotations

import kvblock
from tests.torture.holding import HELD_MAX, SessionHolding
from tests.torture.setting import BATCHES


class StashHolding(SessionHolding):
    """A session that a block pool makes the steps of."""

    HAS_STASH = True

    def attach(self, *, takeover: bool) -> None:
        super().attach(takeover=takeover)
        self._pool = kvblock.BlockPool(self._session)

    def _step(self) -> None:
        batch = self.random.choice(BATCHES)
        has = batch in self.tables
        release = has and self.random.random() < 0.6
        held = sum(map(len, self.tables.values()))
        acquire = self.random.randint(1, 6) if not has and held < HELD_MAX else 0
        blocks = self.random.sample(self.tables[batch], len(self.tables[batch])) if release else []
        self._let_go([batch] if release else [], "stash", [batch] if acquire else [])
        if release:
            self._pool.release(blocks)
        taken = self.again(lambda: self._pool.acquire(acquire)) if acquire else []
        self._pool.flush()
        self._granted({batch: taken} if isinstance(taken, list) and taken else {}, local=True)

    def end(self) -> int:
        self._pool.close()
        return super().end()

"""What the server has right after a start, written down for the oracle.

Rules:
- Engines go on meanwhile: the entry tells from when to when the server was asked, and the oracle
  leaves out what changed in between.
- It is asked directly, not through the proxy.
"""

import kvblock
from kvblock.errors import KVBlockError
from tests.torture.history import History
from tests.torture.setting import POOL, Setting

PAGE = 10_000


def dump(setting: Setting, history: History, begun_ns: int) -> None:
    """Write down leases, tables and the audit; `begun_ns`: before it could answer anybody."""
    try:
        with kvblock.Client(setting.server, pool=POOL, timeout=5.0) as kv:
            before = {row.engine: row.epoch for row in kv.list_engines(pool=POOL)}
            tables: dict[str, dict[int, list[int]]] = {name: {} for name in before}
            for row in kv.list_sequences(pool=POOL, with_block_numbers=True, page_size=PAGE):
                tables.setdefault(row.engine, {})[row.sequence_id] = row.block_numbers
            acquired: dict[str, list[int]] = {name: [] for name in before}
            held = [kvblock.BlockState.HELD]
            for block in kv.list_blocks(pool=POOL, states=held, page_size=PAGE):
                if block.sequence_id is None:
                    acquired.setdefault(block.engine, []).append(block.block_number)
            after = {row.engine: row.epoch for row in kv.list_engines(pool=POOL)}
            reports = kv.audit()
    except KVBlockError as error:
        history.add("not asked", text=str(error))
        return
    engines = {
        name: {
            "epoch": epoch,
            "tables": tables.get(name, {}),
            "acquired": acquired.get(name, []),
        }
        for name, epoch in before.items()
        if after.get(name) == epoch
    }
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    wrong = [sentence for report in reports for sentence in report.violations]
    history.add("server has", begun=begun_ns, engines=engines, changed=changed, audit=wrong)

"""The asyncio client: `client`, `operator`, `session` and what they need.

Rules:
- `connection`, `stream`, `event` and `cancelling` are asyncio's own; of all other modules
  `scripts/gen_sync.py` makes those of `kvblock._sync`.
"""

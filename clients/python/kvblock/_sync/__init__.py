"""The synchronous client, which stands on gRPC's synchronous stubs; no event loop is involved.

Rules:
- `connection`, `stream` and `event` are written by hand; all other modules are generated from those
  of `kvblock._async` by `scripts/gen_sync.py`.
"""

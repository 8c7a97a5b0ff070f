"""What outlives the server's process: every command that changed a pool, and snapshots of pools.

Rules:
- What is written are commands with their stamps, never effects: a restart runs them through the
  same `Pool.apply` as live traffic.
- It depends on the core only: on no gRPC, no event loop and no configuration model.
- Nothing that was written is dropped in silence: what cannot be read stops the start.
"""

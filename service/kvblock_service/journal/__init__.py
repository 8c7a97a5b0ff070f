"""What outlives the server's process: every command that changed a pool, and snapshots of pools.

Rules:
- What is kept are commands with their stamps, never effects: a restart runs them through the same
  `Pool.apply` as live traffic.
- Only the core is known here: no gRPC, no event loop, no configuration model.
- Nothing that was kept is thrown away without a word: what cannot be read stops the start.
"""

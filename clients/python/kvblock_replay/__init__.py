"""Replay of a request trace against a real server: one shared pool beside fixed shares.

Rules of this package:
  - `engine` and `simulation` are pure: virtual time in whole nanoseconds, no clock, no randomness,
    no I/O. They ask for a Step and are given its StepResult; `driver` makes the real call.
  - the virtual result depends on the trace and the parameters only, never on how fast the server
    answers; what the clock says is kept apart, as `measured`.
  - rich, typer and matplotlib are imported only by the modules that draw.
"""

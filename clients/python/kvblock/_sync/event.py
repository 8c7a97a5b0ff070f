"""An event that ends pauses.

Rules:
- Any thread may set it, and any number of them may wait for it.
"""

from threading import Event as StopEvent

__all__ = ["StopEvent"]

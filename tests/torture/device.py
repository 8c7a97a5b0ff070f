"""The device: a process that carries out engines' writes, each some time after it was asked for.

It stands for the work that is queued on an accelerator when its engine is killed or stopped: that
goes on, and ends within a bounded time.

Rules:
- It is never stopped and never killed, so that a write lands at most `late` seconds after it came.
- A write that comes when its lease is over is dropped: it is the engine's check right before the
  write, made at a place where the engine cannot be stopped between check and write.
"""

import heapq
import json
import os
import select
import socket
import sys
from typing import NamedTuple

import kvblock
from tests.torture.arena import Memory, Settled, Stamp, Stamps
from tests.torture.setting import Setting, now_ns

DATAGRAM_MAX = 65536


class Write(NamedTuple):
    """A write on its way: its due time, an order among equals, and what it does."""

    due_ns: int
    order: int
    stamp: Stamp
    blocks: list[int]


class Ask:
    """An engine's end of the way to the device."""

    def __init__(self, setting: Setting) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(setting.device)

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()

    def write(self, stamp: Stamp, blocks: list[int], valid_until_ns: int, delay_ns: int) -> None:
        """Ask for a write."""
        self._socket.send(json.dumps([valid_until_ns, delay_ns, stamp, blocks]).encode())


def serve(setting: Setting, memory: Memory) -> None:
    """Carry out writes until the parent is gone."""
    stamps, settled = Stamps(kvblock.Arena.open(memory)), Settled(setting.settled)
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(setting.device)
    print("ready", flush=True)
    waiting: list[Write] = []
    order, parent = 0, os.getppid()
    while os.getppid() == parent:
        left = (waiting[0].due_ns - now_ns()) / 1e9 if waiting else 1.0
        if select.select([inbox], [], [], max(0.0, left))[0]:
            until_ns, delay_ns, stamp, blocks = json.loads(inbox.recv(DATAGRAM_MAX))
            if now_ns() < until_ns:
                order += 1
                heapq.heappush(waiting, Write(now_ns() + delay_ns, order, Stamp(*stamp), blocks))
            else:
                settled.add(stamp[0])
        while waiting and waiting[0].due_ns <= now_ns():
            write = heapq.heappop(waiting)
            for block in write.blocks:
                stamps.write(block, write.stamp)
            settled.add(write.stamp.life)


if __name__ == "__main__":
    serve(Setting.from_json(sys.argv[1]), Memory.from_json(sys.argv[2]))

"""`python -m benchmarks`."""

from kvblock_cli import main

main("benchmarks.command", "python -m benchmarks")

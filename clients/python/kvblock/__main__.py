"""`python -m kvblock` is `kvblock`."""

from kvblock.cli import main

main()

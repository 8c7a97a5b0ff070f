"""`python -m kvblock` is `kvblock`."""

from kvblock_cli import main

main()

"""Writes the table of settings into docs/configuration.md, between its marks.

With --check nothing is written: it fails when the table is not what the settings give.
"""

import sys
from pathlib import Path

from kvblock_service.config.described import settings_table

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
BEGIN, END = "<!-- settings: made by `make gen` -->\n", "<!-- end of settings -->\n"


def main() -> None:
    """Write the page anew, or compare it."""
    before = PAGE.read_text(encoding="utf-8")
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    after = f"{head}{BEGIN}\n{settings_table()}\n{END}{tail}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit(f"{PAGE.name}: the table is not what the settings give; run: make gen")


if __name__ == "__main__":
    main()

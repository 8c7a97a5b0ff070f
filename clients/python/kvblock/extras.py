"""The extras of this package, for messages about what is missing.

Rules:
- A message names the extra and no index: what the package was installed from, a wheel or a checkout
  for instance, has it too.
"""


def install_hint(extra: str) -> str:
    """What to do where a library is missing that comes with an extra."""
    return f"install this package with its `{extra}` extra"

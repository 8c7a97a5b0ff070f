"""No property fails because the machine is busy, and a failure prints what reproduces it."""

from hypothesis import settings

settings.register_profile("kvblock", deadline=None, print_blob=True)
settings.load_profile("kvblock")

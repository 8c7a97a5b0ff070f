"""The version of this package.

It stands in the source, so that a copy without the metadata of an installation knows it; the build
reads it here.
"""

VERSION = "0.1.0"

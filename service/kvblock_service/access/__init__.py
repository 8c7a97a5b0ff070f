"""Who may do what: identities, the access file that lists them, and files that are read anew.

Rules:
- Nothing here depends on gRPC: `kvblock_service.rpc.peer` finds out what a caller shows, and asks
  here.
- Of a token only the SHA-256 digest is stored, and nothing here puts that, or a token, into a text.
"""

from kvblock_service.access.file import access_file
from kvblock_service.access.identities import LOCAL_OPERATOR, Identities, Identity, digest_of
from kvblock_service.access.rejected_calls import RejectedCalls
from kvblock_service.access.reloaded import AccessError, Reloaded
from kvblock_service.access.tls import TlsFiles, tls_files

__all__ = [
    "LOCAL_OPERATOR",
    "AccessError",
    "Identities",
    "Identity",
    "RejectedCalls",
    "Reloaded",
    "TlsFiles",
    "access_file",
    "digest_of",
    "tls_files",
]

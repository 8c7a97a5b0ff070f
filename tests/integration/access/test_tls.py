"""TLS and client certificates, over real handshakes, with both clients."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

import kvblock
from tests.conftest import DEFAULT_POOLS, ServerFactory
from tests.integration.access.certificates import Files, authority
from tests.integration.access.conftest import TOKENS, Guarded, port_of
from tests.integration.client.flavours import Flavour
from tests.integration.spawned import spawned
from tests.waiting import happens

PORT = ["--listen", "127.0.0.1:0"]


def served(flavour: Flavour, address: str, **settings: Any) -> bool:
    """Whether a call and a session come through."""
    with flavour.entered(flavour.client(address, timeout=20.0, **settings)) as kv:
        assert flavour.do(kv.health())
        with flavour.entered(kv.session()) as session:
            answer = flavour.do(session.step(allocate=[1]))
        return len(answer.block_numbers) == 1


def refused(address: str, **settings: Any) -> str:
    with kvblock.connect(address, timeout=20.0, retries=False, **settings) as kv:
        with pytest.raises(kvblock.UnavailableError) as caught:
            kv.stats()
        return str(caught.value)


def test_tls(server_factory: ServerFactory, files: Files, flavour: Flavour) -> None:
    server = server_factory(DEFAULT_POOLS, [*PORT, *files.serve_flags()])
    assert served(flavour, port_of(server), tls=files.trust())
    assert served(flavour, server.addresses[1], tls=files.trust())
    assert served(flavour, server.address)


def test_a_server_under_another_name(
    server_factory: ServerFactory, files: Files, flavour: Flavour
) -> None:
    flags = files.serve_flags()
    files.issue("server", "kvblock.example")
    server = server_factory(DEFAULT_POOLS, [*PORT, *flags])
    named = files.trust()._replace(server_name="kvblock.example")
    assert served(flavour, server.addresses[1], tls=named)
    refused(server.addresses[1], tls=files.trust())


def test_a_server_that_is_another_is_not_talked_to(
    server_factory: ServerFactory, files: Files, tmp_path: Path
) -> None:
    server = server_factory(DEFAULT_POOLS, [*PORT, *files.serve_flags()])
    other = tmp_path / "other-ca.pem"
    authority("theirs").cert_pem.write_to_path(str(other))
    assert "CERTIFICATE_VERIFY_FAILED" in refused(port_of(server), tls=kvblock.Tls(ca=other))
    assert "CERTIFICATE_VERIFY_FAILED" in refused(port_of(server), tls=True)
    named = files.trust()._replace(server_name="else.example")
    assert "Hostname Verification" in refused(port_of(server), tls=named)
    refused(port_of(server))


def test_a_server_whose_certificate_has_expired_is_not_talked_to(
    server_factory: ServerFactory, files: Files
) -> None:
    flags = files.serve_flags()
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    files.issue("server", "localhost", until=yesterday)
    server = server_factory(DEFAULT_POOLS, [*PORT, *flags])
    refused(port_of(server), tls=files.trust())


def test_client_certificates(server_factory: ServerFactory, files: Files, flavour: Flavour) -> None:
    """Without an access file any certificate of the authority will do."""
    server = server_factory(DEFAULT_POOLS, [*PORT, *files.serve_flags(client_ca=True)])
    assert served(flavour, port_of(server), tls=files.show("anybody.example"))


@pytest.mark.parametrize("shown", ["nothing", "of another authority", "expired"])
def test_client_certificates_that_are_none(
    server_factory: ServerFactory, files: Files, shown: str
) -> None:
    server = server_factory(DEFAULT_POOLS, [*PORT, *files.serve_flags(client_ca=True)])
    tls = files.trust()
    if shown != "nothing":
        expired = datetime.now(timezone.utc) - timedelta(days=1) if shown == "expired" else None
        by = authority("theirs") if shown == "of another authority" else None
        cert, key = files.issue("client", "anybody.example", by=by, until=expired)
        tls = tls._replace(cert=cert, key=key)
    refused(port_of(server), tls=tls)


def test_a_certificate_says_who_is_calling(
    guarded: Guarded, files: Files, flavour: Flavour
) -> None:
    server = guarded(*files.serve_flags(client_ca=True))
    assert served(flavour, port_of(server), tls=files.show("trainer-7.example"), engine="vllm-1")
    # The common name counts only where there is no alternative name.
    only_name = files.show(common_name="trainer-8.example")
    assert served(flavour, port_of(server), tls=only_name)
    both = files.show("somebody.example", common_name="trainer-9.example")
    client = flavour.client(port_of(server), tls=both, timeout=20.0)
    with flavour.entered(client) as kv, pytest.raises(kvblock.UnauthenticatedError) as caught:
        flavour.do(kv.can_allocate())
    assert caught.value.metadata == {"problem": "the certificate's names are not known"}


def test_a_token_counts_before_a_certificate(
    guarded: Guarded, files: Files, flavour: Flavour
) -> None:
    server = guarded(*files.serve_flags(client_ca=True))
    tls = files.show("trainer-7.example")
    settings: dict[str, Any] = {"tls": tls, "timeout": 20.0}
    client = flavour.client(port_of(server), token=TOKENS["operator"], **settings)
    with flavour.entered(client) as kv:
        assert len(flavour.do(kv.list_pools())) == 2
    client = flavour.client(port_of(server), token="wrong-token-wrong-token", **settings)
    with flavour.entered(client) as kv, pytest.raises(kvblock.UnauthenticatedError):
        flavour.do(kv.can_allocate())


def swap_key(files: Files) -> None:
    files.issue("other", "localhost")
    (files.folder / "server.key").write_bytes((files.folder / "other.key").read_bytes())


def damage_key(files: Files) -> None:
    key = files.folder / "server.key"
    key.write_text(key.read_text().replace("MH", "AA", 1)[:-60])


def encrypt_key(files: Files) -> None:
    path = files.folder / "server.key"
    key = load_pem_private_key(path.read_bytes(), None)
    lock = BestAvailableEncryption(b"password")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))


BROKEN: dict[str, tuple[Callable[[Files], object], str]] = {
    "no certificate": (
        lambda files: (files.folder / "server.pem").unlink(),
        "/server.pem: No such file or directory",
    ),
    "no key in the key": (
        lambda files: (files.folder / "server.key").write_text("x"),
        "/server.key: has no private key in PEM form",
    ),
    "another key": (swap_key, "/server.key: is not the key of the certificate in"),
    "encrypted key": (encrypt_key, "tls_key: is encrypted; give a key without a password"),
    "damaged key": (damage_key, "cannot be read as a certificate and its key"),
    "no certificate in the authorities": (
        lambda files: files.ca.write_text("x"),
        "/ca.pem: has no certificate in PEM form",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_files_that_cannot_be_used_refuse_the_start(files: Files, how: str) -> None:
    flags = files.serve_flags(client_ca=True)
    damage, told = BROKEN[how]
    damage(files)
    with spawned(*PORT, *flags) as server:
        assert server.first_line() == ""
        assert server.end() == 2
        assert told in server.log()
        assert "Traceback" not in server.log()


def test_a_plain_port_that_others_can_reach_refuses_to_start(files: Files) -> None:
    with spawned("--listen", "0.0.0.0:0") as server:
        assert server.first_line() == ""
        assert server.end() == 2
        assert "0.0.0.0:0: is open to other machines" in server.log()
    with spawned("--listen", "0.0.0.0:0", "--insecure") as server:
        (address,) = server.ready()
        happens(lambda: "other machines reach this without protection" in server.log())
    with spawned("--listen", "0.0.0.0:0", *files.serve_flags()) as server:
        (address,) = server.ready()
        happens(lambda: "whoever reaches this may do everything" in server.log())
        with kvblock.connect(address.replace("0.0.0.0", "localhost"), tls=files.trust()) as kv:
            assert kv.health()
    with spawned("--listen", "0.0.0.0:0", *files.serve_flags(client_ca=True)) as server:
        server.ready()
        assert "reach" not in server.log()

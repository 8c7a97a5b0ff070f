"""Tokens, Unix sockets and what changes under a live server, with both clients."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import kvblock
from tests.integration.access.certificates import Files, authority
from tests.integration.access.conftest import (
    IDENTITIES,
    REFUSED,
    TOKENS,
    Guarded,
    follows,
    port_of,
    rewrite,
)
from tests.integration.client.flavours import Flavour
from tests.integration.spawned import spawned
from tests.waiting import happens


def connect(server: kvblock.EmbeddedServer, who: str | None, **settings: Any) -> kvblock.Client:
    token = TOKENS[who] if who else None
    return kvblock.connect(port_of(server), token=token, timeout=20.0, **settings)


def test_a_token_says_who_is_calling(guarded: Guarded, flavour: Flavour) -> None:
    server = guarded()

    def client(token: str | None, **settings: Any) -> Any:
        return flavour.entered(flavour.client(port_of(server), token=token, **settings))

    with client(TOKENS["trainer"], engine="vllm-0") as kv:
        assert len(flavour.do(kv.allocate(1, 2)).block_numbers) == 2
        assert flavour.do(kv.free_returning_count(1)) == 2
        assert flavour.do(kv.stats(pool="gpu0", engine="vllm-0")).pools[0].pool == "gpu0"
        with pytest.raises(kvblock.PermissionDeniedError) as denied:
            flavour.do(kv.allocate(1, pool="gpu1"))
        assert denied.value.reason is kvblock.ErrorReason.PERMISSION_DENIED
        assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert denied.value.metadata == {"identity": "trainer", "what": "use pool 'gpu1'"}
        with pytest.raises(kvblock.PermissionDeniedError):
            flavour.do(kv.session(engine="other").attach())
        with pytest.raises(kvblock.PermissionDeniedError):
            flavour.do(kv.audit())
    with client(TOKENS["operator"]) as kv:
        assert all(flavour.do(kv.audit()))
        assert len(flavour.do(kv.stats()).pools) == 2
    for token in (None, "wrong-token-wrong-token", TOKENS["trainer"].upper()):
        with client(token) as kv, pytest.raises(kvblock.UnauthenticatedError) as unknown:
            flavour.do(kv.can_allocate())
        assert unknown.value.reason is kvblock.ErrorReason.UNAUTHENTICATED
        with client(token) as kv, pytest.raises(kvblock.UnauthenticatedError):
            flavour.do(kv.session().attach())


def test_who_may_open_a_unix_socket_is_trusted_unless_it_says_who_it_is(
    guarded: Guarded,
) -> None:
    server = guarded()
    with kvblock.connect(server.address) as kv:
        assert kv.can_allocate(engine="anybody", pool="gpu1")
        assert len(kv.list_pools()) == 2
    with (
        kvblock.connect(server.address, token=TOKENS["trainer"]) as kv,
        pytest.raises(kvblock.PermissionDeniedError),
    ):
        kv.list_pools()
    with (
        kvblock.connect(server.address, token="wrong-token-wrong-token") as kv,
        pytest.raises(kvblock.UnauthenticatedError),
    ):
        kv.can_allocate()


@pytest.mark.parametrize(
    ("unix", "error"),
    [("token", kvblock.UnauthenticatedError), ("trainer", kvblock.PermissionDeniedError)],
)
def test_the_access_file_says_who_the_peer_of_a_unix_socket_is(
    guarded: Guarded, access: Path, unix: str, error: type[kvblock.KVBlockError]
) -> None:
    server = guarded()
    rewrite(server, access, IDENTITIES, unix)
    with kvblock.connect(server.address) as kv, pytest.raises(error):
        kv.can_allocate(engine="other")
    with kvblock.connect(server.address, token=TOKENS["operator"]) as kv:
        assert kv.can_allocate(engine="other")
    # What looks at the server at the end of the test has no token.
    rewrite(server, access, IDENTITIES)


def test_a_changed_access_file_counts_while_the_server_runs(guarded: Guarded, access: Path) -> None:
    server = guarded()
    new_token = "new-token-of-the-trainer"
    digest = hashlib.sha256(new_token.encode()).hexdigest()
    with connect(server, "trainer") as kv:
        assert kv.can_allocate()
        rewrite(
            server,
            access,
            IDENTITIES.replace(f'token = "{TOKENS["trainer"]}"', f'token_sha256 = "{digest}"'),
        )
        with pytest.raises(kvblock.UnauthenticatedError):
            kv.can_allocate()
    with kvblock.connect(port_of(server), token=new_token) as kv:
        assert kv.can_allocate()
        with pytest.raises(kvblock.PermissionDeniedError):
            kv.can_allocate(pool="gpu1")
        wider = IDENTITIES.replace(TOKENS["trainer"], new_token).replace('"gpu0"', '"gpu*"')
        rewrite(server, access, wider)
        assert kv.can_allocate(pool="gpu1")


def test_a_session_whose_caller_is_withdrawn_ends_at_its_next_step(
    guarded: Guarded, access: Path, flavour: Flavour
) -> None:
    server = guarded()
    client = flavour.client(port_of(server), token=TOKENS["trainer"], timeout=20.0)
    with flavour.entered(client) as kv:
        stays, goes = kv.session(engine="vllm-1"), kv.session(engine="default")
        for session in (stays, goes):
            flavour.do(session.attach())
            flavour.do(session.step(allocate=[1]))
        rewrite(server, access, IDENTITIES.replace('"vllm-*", "default"', '"vllm-*"'))
        flavour.do(stays.step(allocate=[2]))
        with pytest.raises(kvblock.PermissionDeniedError) as denied:
            flavour.do(goes.step(allocate=[2]))
        assert denied.value.metadata["what"] == "be engine 'default'"
        rewrite(server, access, IDENTITIES.replace(TOKENS["trainer"], "another-token-entirely"))
        with pytest.raises(kvblock.UnauthenticatedError):
            flavour.do(stays.step(allocate=[3]))
    with kvblock.connect(server.address) as kv:
        held = {one.engine: one.held_blocks for one in kv.stats(pool="gpu0").pools[0].engines}
        assert held == {"default": 1, "vllm-1": 2}


def test_an_allocation_whose_caller_is_withdrawn_while_it_waits_is_not_granted(
    guarded: Guarded, access: Path
) -> None:
    server = guarded()
    trainers = [connect(server, "trainer", engine=f"vllm-{number}") for number in range(2)]
    with trainers[0] as withdrawn, trainers[1] as denied, connect(server, "operator") as operator:
        operator.allocate(1, 64)
        with ThreadPoolExecutor() as threads:
            first = threads.submit(withdrawn.allocate, 1, 2, max_wait=60.0)
            happens(lambda: operator.stats(pool="gpu0").pools[0].waiting == 1)
            rewrite(server, access, IDENTITIES.replace(TOKENS["trainer"], "another-token-5f0c9a1e"))
            operator.free(1)
            with pytest.raises(kvblock.UnauthenticatedError):
                first.result()
            rewrite(server, access, IDENTITIES)
            operator.allocate(1, 64)
            second = threads.submit(denied.allocate, 1, 2, max_wait=60.0)
            happens(lambda: operator.stats(pool="gpu0").pools[0].waiting == 1)
            rewrite(server, access, IDENTITIES.replace('"vllm-*"', '"vllm-0"'))
            operator.free(1)
            with pytest.raises(kvblock.PermissionDeniedError):
                second.result()
        assert operator.stats(pool="gpu0").pools[0].held_blocks == 0


def test_certificates_of_a_live_server_are_renewed(guarded: Guarded, files: Files) -> None:
    server = guarded(*files.serve_flags())
    token = TOKENS["trainer"]
    with kvblock.connect(port_of(server), token=token, tls=files.trust()) as before:
        assert before.can_allocate()
        with follows(server):
            files.issue("server", "renewed.example")
        named = files.trust()._replace(server_name="renewed.example")
        with kvblock.connect(port_of(server), token=token, tls=named) as after:
            assert after.can_allocate()
        with (
            kvblock.connect(port_of(server), token=token, tls=files.trust()) as stale,
            pytest.raises(kvblock.UnavailableError),
        ):
            stale.can_allocate()
        assert before.can_allocate()
        with follows(server, REFUSED):
            (files.folder / "server.key").write_text("broken")
        with kvblock.connect(port_of(server), token=token, tls=named) as still:
            assert still.can_allocate()
    happens(lambda: "has no private key in PEM form" in server.stderr)


def test_authorities_of_clients_are_renewed(guarded: Guarded, files: Files) -> None:
    server = guarded(*files.serve_flags(client_ca=True))
    shown = files.show("trainer-1.example")
    trusted = files.folder / "trusted.pem"
    trusted.write_bytes(files.ca.read_bytes())
    shown = shown._replace(ca=trusted)
    with kvblock.connect(port_of(server), tls=shown) as kv:
        assert kv.can_allocate()
    with follows(server):
        authority("theirs").cert_pem.write_to_path(str(files.ca))
    with kvblock.connect(port_of(server), tls=shown) as kv, pytest.raises(kvblock.UnavailableError):
        kv.can_allocate()


def by_reason(server: kvblock.EmbeddedServer, metric: str) -> dict[str, float]:
    with urlopen(f"http://{server.metrics_address}/metrics") as answer:
        text = answer.read().decode()
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    }


def test_failed_logins_are_counted_and_logged_without_what_was_shown(guarded: Guarded) -> None:
    server = guarded("--metrics-listen", "127.0.0.1:0")
    wrong = "wrong-token-wrong-token"
    for token in (wrong, wrong, None):
        with (
            kvblock.connect(port_of(server), token=token) as kv,
            pytest.raises(kvblock.UnauthenticatedError),
        ):
            kv.can_allocate()
    assert by_reason(server, "kvblock_login_failures_total") == {
        "NO_CREDENTIALS": 1,
        "MALFORMED": 0,
        "UNKNOWN_TOKEN": 2,
        "UNKNOWN_CERTIFICATE": 0,
        "WITHDRAWN": 0,
    }
    happens(lambda: server.stderr.count("login failed") == 2)
    lines = [line for line in server.stderr.splitlines() if "login failed" in line]
    assert any("the token is not known" in line and "127.0.0.1" in line for line in lines)
    assert any("no credentials were shown" in line for line in lines)
    assert wrong not in server.stderr


def test_denied_permissions_are_counted_and_logged(guarded: Guarded, access: Path) -> None:
    server = guarded("--metrics-listen", "127.0.0.1:0")
    with (
        connect(server, "trainer") as kv,
        grpc.insecure_channel(port_of(server)) as channel,
        kv.session() as session,
    ):
        for call in (
            partial(kv.allocate, 1, engine="other"),
            partial(kv.stats, pool="gpu0"),
            kv.session(engine="other").attach,
            partial(kv.allocate, 1, pool="gpu1"),
            kv.audit,
        ):
            with pytest.raises(kvblock.PermissionDeniedError):
                call()
        with pytest.raises(grpc.RpcError):
            channelz_pb2_grpc.ChannelzStub(channel).GetServers(
                channelz_pb2.GetServersRequest(),
                metadata=[("authorization", f"Bearer {TOKENS['trainer']}")],
            )
        rewrite(server, access, IDENTITIES.replace('"default"', '"nobody"'))
        with pytest.raises(kvblock.PermissionDeniedError):
            kv.list_pools()
        with pytest.raises(kvblock.PermissionDeniedError):
            session.step()
        rewrite(server, access, IDENTITIES)
    denied = by_reason(server, "kvblock_permission_denials_total")
    assert denied == {"ENGINE": 4, "POOL": 1, "ADMIN": 3}
    assert sum(by_reason(server, "kvblock_login_failures_total").values()) == 0
    happens(lambda: server.stderr.count("permission denied") == 3)
    lines = [line for line in server.stderr.splitlines() if "permission denied" in line]
    for told in ("be engine 'other'", "use pool 'gpu1'", "call Audit, which is for admins"):
        assert any(told in line and "trainer" in line and "127.0.0.1" in line for line in lines)
    assert TOKENS["trainer"] not in server.stderr


@pytest.mark.parametrize("field", ["engine", "pool"])
def test_what_is_no_name_is_no_matter_of_permission(guarded: Guarded, field: str) -> None:
    server = guarded("--metrics-listen", "127.0.0.1:0")

    def attach(kv: kvblock.Client, **names: Any) -> None:
        kv.session(**names).attach()

    with connect(server, "trainer", engine="vllm-0") as kv:
        calls: list[Callable[..., object]] = [
            partial(kv.allocate, 1),
            kv.stats,
            partial(attach, kv),
        ]
        for name in ("x" * 100_000, "a\nb"):
            for call in calls:
                with pytest.raises(kvblock.InvalidArgumentError) as caught:
                    call(**{"engine": "vllm-0", field: name})
                assert caught.value.reason is kvblock.ErrorReason.INVALID_FIELD
                assert [one.field for one in caught.value.violations] == [field]
    assert sum(by_reason(server, "kvblock_permission_denials_total").values()) == 0
    assert "x" * 200 not in server.stderr


def test_unix_sockets_have_the_mode_and_the_owner_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "kv.sock"
    owner = ["--unix-owner", "12345", "--unix-group", "54321"] if os.geteuid() == 0 else []
    with spawned("--listen", f"unix:{path}", "--unix-mode", "0660", *owner) as server:
        server.ready()
        there = path.stat()
        assert stat.S_IMODE(there.st_mode) == 0o660
        assert "every user" not in server.log()
        if owner:
            assert (there.st_uid, there.st_gid) == (12345, 54321)


def test_a_socket_for_every_user_is_warned_of(tmp_path: Path) -> None:
    with spawned("--listen", f"unix:{tmp_path}/kv.sock", "--unix-mode", "0666") as server:
        server.ready()
        happens(lambda: "every user of this machine may open this" in server.log())


@pytest.mark.skipif(
    os.geteuid() == 0,
    reason="root may give a file to anybody; it runs where the tests run as another user",
)
def test_an_owner_that_cannot_be_had_refuses_the_start(tmp_path: Path) -> None:
    flags = ("--listen", f"unix:{tmp_path}/kv.sock", "--unix-owner", "root")
    with spawned(*flags) as server:
        assert server.first_line() == ""
        assert server.end() == 1
        assert "unix_owner, unix_group, unix_mode: Operation not permitted" in server.log()
    assert list(tmp_path.iterdir()) == []

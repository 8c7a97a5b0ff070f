"""Which values are legal, and what is said about those that are not."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvblock_service.config import ConfigError, ServerSettings, load_settings
from kvblock_service.config.addresses import is_loopback, listen_address
from kvblock_service.config.values import group_number, user_number

POOL = "main:total=8"
SOCKET = "unix:/tmp/kv.sock"
SPEC = (
    "NAME:total=BLOCKS[,block_size=TOKENS][,device=ID][,reserved=BLOCKS][,block_bytes=BYTES]"
    "[,regions=N][,layout=TEXT][,memory=none|shm|URI][,quarantine=SECONDS]"
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("KVBLOCK_")]:
        monkeypatch.delenv(name)


def load(**flags: object) -> ServerSettings:
    return load_settings({"pools": [POOL], "listen": [SOCKET]} | flags).settings


def problem(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**flags)
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize(
    ("spec", "full"),
    [
        ("a:total=1", "a:total=1,block_size=16,device=0"),
        ("A-b_c.9:total=2147483647", "A-b_c.9:total=2147483647,block_size=16,device=0"),
        (f"{'x' * 128}:total=1", f"{'x' * 128}:total=1,block_size=16,device=0"),
        (
            "a:device=4294967295,block_size=65536,total=3",
            "a:total=3,block_size=65536,device=4294967295",
        ),
        (
            "a:layout=NHD fp8,regions=65536,total=65537,block_bytes=1099511627776,reserved=65536",
            "a:total=65537,block_size=16,device=0,reserved=65536,block_bytes=1099511627776"
            ",regions=65536,layout=NHD fp8",
        ),
        (
            "a:total=8,memory=shm,block_bytes=4096",
            "a:total=8,block_size=16,device=0,block_bytes=4096,memory=shm",
        ),
        ("a:total=8,memory=none", "a:total=8,block_size=16,device=0"),
        (
            "a:total=8,memory=dax:/dev/dax0.0?x=1",
            "a:total=8,block_size=16,device=0,memory=dax:/dev/dax0.0?x=1",
        ),
        ("a:total=1,regions=3,block_bytes=0", "a:total=1,block_size=16,device=0,regions=3"),
    ],
)
def test_pool_specs(spec: str, full: str) -> None:
    assert load(pools=[spec]).pools[0].spec() == full


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("a", "total is not given"),
        ("a:block_size=16", "total is not given"),
        ("a:total=0", "total 0 must be a whole number from 1 to 2147483647"),
        ("a:total=2147483648", "total 2147483648 must be a whole number from 1 to 2147483647"),
        ("a:total=1.5", "total 1.5 must be a whole number from 1 to 2147483647"),
        ("a:total=1,block_size=0", "block_size 0 must be a whole number from 1 to 65536"),
        ("a:total=1,block_size=65537", "block_size 65537 must be a whole number from 1 to 65536"),
        ("a:total=1,device=-1", "device -1 must be a whole number from 0 to 4294967295"),
        (
            "a:total=1,device=4294967296",
            "device 4294967296 must be a whole number from 0 to 4294967295",
        ),
        ("a:total=1,total=2", "has the key 'total' twice"),
        ("a:total=1,name=b", "has the key 'name' twice"),
        ("a:total=8,reserved=8", "reserved 8 must be below total = 8"),
        ("a:total=99999,reserved=65537", "reserved 65537 must be a whole number from 0 to 65536"),
        ("a:total=0,reserved=3", "total 0 must be a whole number from 1 to 2147483647"),
        ("a:total=1,regions=0", "regions 0 must be a whole number from 1 to 65536"),
        ("a:total=1,regions=65537", "regions 65537 must be a whole number from 1 to 65536"),
        (
            "a:total=1,block_bytes=1099511627777",
            "block_bytes 1099511627777 must be a whole number from 0 to 1099511627776",
        ),
        (
            "a:total=1,regions=3,block_bytes=10",
            "block_bytes 10 must be a multiple of regions = 3",
        ),
        ("a:total=1,layout=a\tb", "layout a\tb must be at most 256 printable characters"),
        ("a:total=1,memory=shm", "memory shm needs block_bytes, the bytes of one block"),
        (
            "a:total=1,memory=here",
            "memory here must be none, shm, or a URI of at most 1024 printable ASCII characters",
        ),
        (
            "a:tot=1",
            "has the unknown key 'tot'; a pool has name, total, block_size, device, reserved,"
            " block_bytes, regions, layout, memory, quarantine",
        ),
        ("a:1", f"must be {SPEC}; '1' is no KEY=VALUE"),
        ("a:total=1,", f"must be {SPEC}; '' is no KEY=VALUE"),
        (":total=1", "name  must be 1 to 128 characters from A-Z a-z 0-9 . _ -"),
        ("a b:total=1", "name a b must be 1 to 128 characters from A-Z a-z 0-9 . _ -"),
        ("é:total=1", "name é must be 1 to 128 characters from A-Z a-z 0-9 . _ -"),
    ],
)
def test_wrong_pool_specs(spec: str, said: str) -> None:
    assert problem(pools=[spec]) == f"--pool {spec}: {said}"


def test_a_layout_has_at_most_256_characters() -> None:
    assert load(pools=[f"a:total=1,layout={'é' * 256}"]).pools[0].layout == "é" * 256
    assert "must be at most 256 printable characters" in problem(
        pools=[f"a:total=1,layout={'é' * 257}"]
    )


def test_long_names_are_refused_and_shown_in_part() -> None:
    said = problem(pools=[f"{'x' * 129}:total=1"])
    assert "must be 1 to 128 characters" in said
    assert len(said) < 400


def test_names_of_pools_differ() -> None:
    twice = ["a:total=1", "b:total=1", "a:total=2"]
    assert problem(pools=twice) == "--pool a:total=1 b:total=1 a:total=2: must not name a twice"


def test_the_default_pool_exists() -> None:
    pools = ["a:total=1", "b:total=1"]
    assert load(pools=pools).default_pool == ""
    assert load(pools=pools, default_pool="b").default_pool == "b"
    said = problem(pools=pools, default_pool="c")
    assert said == "--default-pool c: must be one of the pools: a, b"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("unix:/run/kv.sock", "unix:/run/kv.sock"),
        ("unix:///run/kv.sock", "unix:/run/kv.sock"),
        ("unix:kv.sock", f"unix:{Path.cwd()}/kv.sock"),
        (f"unix:/{'x' * 106}", f"unix:/{'x' * 106}"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.8.9.1:65535", "127.8.9.1:65535"),
        ("localhost:080", "localhost:80"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_addresses(written: str, address: str) -> None:
    assert load(listen=[written]).listen == (address,)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "must be a text that is not empty"),
        ("foo", "must be unix:PATH, HOST:PORT or [IPv6]:PORT"),
        ("::1:80", "must be unix:PATH, HOST:PORT or [IPv6]:PORT"),
        ("http://localhost:80", "must be unix:PATH, HOST:PORT or [IPv6]:PORT"),
        ("localhost:http", "must be unix:PATH, HOST:PORT or [IPv6]:PORT"),
        (":80", "names no host; for this machine only, write 127.0.0.1:PORT"),
        ("localhost:65536", "port 65536 must be 0 to 65535"),
        ("[::g]:80", "::g is no IPv6 address"),
        ("unix:", "names no file; write unix:/PATH/TO/NAME.sock"),
        ("unix:/", "names no file; write unix:/PATH/TO/NAME.sock"),
        ("unix://host/path", "must be unix:PATH or unix:///PATH"),
        ("unix:/a b", "the path of a socket must have no space, % ? # or control character"),
        ("unix:/a%20b", "the path of a socket must have no space, % ? # or control character"),
    ],
)
def test_wrong_addresses(written: str, said: str) -> None:
    assert problem(listen=[written]) == f"--listen {written}: {said}"


def test_the_path_of_a_socket_has_at_most_107_bytes() -> None:
    with pytest.raises(ValueError, match=r"has 108 bytes; .* has at most 107"):
        listen_address(f"unix:/{'x' * 107}")
    with pytest.raises(ValueError, match=r"has 109 bytes"):
        listen_address(f"unix:/{'é' * 54}")


def test_addresses_differ() -> None:
    said = problem(listen=["unix:/x", "unix:///x"])
    assert said == "--listen unix:/x unix:///x: must not name unix:/x twice"
    assert load(listen=["127.0.0.1:0", "127.0.0.1:0"]).listen == ("127.0.0.1:0", "127.0.0.1:0")


@pytest.mark.parametrize(
    "address", ["0.0.0.0:80", "[::]:80", "192.168.1.1:80", "example.org:80", "localhost.evil:80"]
)
def test_what_others_can_reach_must_be_permitted(address: str) -> None:
    assert not is_loopback(address)
    begin = "is open to other machines, and nothing protects it; use a loopback address,"
    end = "or permit it with --insecure"
    tls = "give tls_cert and tls_key,"
    assert problem(listen=[address]) == f"--listen {address}: {begin} {tls} {end}"
    assert problem(metrics_listen=address) == f"--metrics-listen {address}: {begin} {end}"
    config = load(listen=[SOCKET, address], metrics_listen="127.0.0.1:9464", insecure=True)
    assert config.exposed() == (address,)
    assert config.unguarded() == ()


def test_tls_protects_what_others_can_reach_but_not_the_metrics() -> None:
    tls = {"tls_cert": "/cert", "tls_key": "/key"}
    config = load(listen=["0.0.0.0:80", SOCKET], **tls)
    assert (config.exposed(), config.unguarded()) == ((), ("0.0.0.0:80",))
    for asks in ({"tls_client_ca": "/ca"}, {"access_file": "/access.toml"}):
        assert load(listen=["0.0.0.0:80"], **tls, **asks).unguarded() == ()
    assert problem(metrics_listen="0.0.0.0:80", **tls).startswith("--metrics-listen 0.0.0.0:80: is")
    config = load(metrics_listen="0.0.0.0:80", insecure=True, **tls)
    assert config.exposed() == ("0.0.0.0:80",)


def test_a_certificate_goes_with_its_key() -> None:
    assert problem(tls_cert="/cert") == "tls_key: not given; tls_cert needs its key"
    assert problem(tls_key="/key") == (
        "--tls-key /key: goes with a certificate; give tls_cert, too"
    )
    assert problem(tls_client_ca="/ca") == (
        "--tls-client-ca /ca: goes with TLS; give tls_cert and tls_key, too"
    )
    assert problem(tls_cert="", tls_key="/key") == "--tls-cert : must be the path of a file"


def test_paths_are_made_absolute() -> None:
    assert load(access_file="access.toml").access_file == f"{Path.cwd()}/access.toml"


@pytest.mark.parametrize(("written", "mode"), [("660", "0660"), ("0600", "0600"), ("000", "0000")])
def test_modes_of_sockets(written: str, mode: str) -> None:
    assert load(unix_mode=written).unix_mode == mode


@pytest.mark.parametrize("written", ["rw", "1777", "0o660", "", "888", 0o660, 440, True])
def test_wrong_modes_of_sockets(written: object) -> None:
    assert "must be a text of three octal digits, such as 0660" in problem(unix_mode=written)


def test_users_and_groups_of_sockets() -> None:
    config = load(unix_owner="root", unix_group=0)
    assert (config.unix_owner, config.unix_group) == ("root", "0")
    assert (user_number("root"), group_number("17")) == (0, 17)
    for setting, kind in (("unix_owner", "user"), ("unix_group", "group")):
        for written in ("no-such-name", "-1", "9999999999", "", True, 1.5):
            said = f"must be the name or the number of a {kind} of this machine"
            assert said in problem(**{setting: written})


def test_metrics_are_served_over_tcp_only() -> None:
    assert load(metrics_listen="[::1]:0").metrics_listen == "[::1]:0"
    said = problem(metrics_listen=SOCKET)
    assert said == f"--metrics-listen {SOCKET}: must be HOST:PORT or [IPv6]:PORT"


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "1e999", "3601", "10s", "", "1_0", " 1", "\u0661"]
)
def test_wrong_seconds(value: str) -> None:
    said = problem(grace=value)
    assert said == f"--grace {value}: must be a number of seconds from 0 to 3600"


def test_words_are_taken_in_any_case() -> None:
    config = load(log_level="WARNING", log_format="JSON", insecure="Yes")
    assert (config.log_level, config.log_format, config.insecure) == ("warning", "json", True)
    assert problem(log_level="loud") == (
        "--log-level loud: must be one of: debug, info, warning, error"
    )
    assert problem(insecure="maybe") == "--insecure maybe: must be true or false"


TOML_VALUES = st.recursive(
    st.one_of(
        st.text("ab09.:=,-%é \n", max_size=8),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.dates(),
        st.sampled_from([POOL, SOCKET]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "total", "device", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
SETTINGS = sorted(load_settings({"pools": [POOL], "listen": [SOCKET]}).settings.as_toml())


@given(settings=st.dictionaries(st.sampled_from(SETTINGS), TOML_VALUES))
@example(settings={"pools": {"name": "a"}})
@example(settings={"pools": [[1]]})
def test_any_value_is_judged_in_plain_words(settings: dict[str, object]) -> None:
    try:
        load(**settings)
    except ConfigError as error:
        told = str(error)
        assert told
        for jargon in ("Input should", "Value error", "pydantic", "https://", "dictionary", "None"):
            assert jargon not in told


def test_the_default_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert load().state_dir == "/home/me/.local/state/kvblock"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert load().state_dir == "/home/me/.local/state/kvblock"
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert load().state_dir == "/x/kvblock"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load().state_dir == "/var/lib/kvblock"


def test_state_settings() -> None:
    assert load(state_dir="~/a").state_dir == str(Path("~/a").expanduser())
    assert load(state_dir="a").state_dir == str(Path("a").absolute())
    assert problem(state_dir="") == "--state-dir : must be the path of a directory"
    assert problem(durability="disk") == "--durability disk: must be one of: process, host"
    assert problem(snapshot_records="0").endswith("from 1 to 1099511627776")

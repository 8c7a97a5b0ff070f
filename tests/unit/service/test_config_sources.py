"""Where settings come from: flags over variables over the file over defaults; nothing unknown."""

import os
from pathlib import Path

import pytest

from kvblock_service.config import ConfigError, ServerSettings, load_settings
from kvblock_service.config.load import PLUGIN_PREFIXES
from kvblock_service.config.values import default_state_dir

FLAGS: dict[str, object] = {"pools": ["main:total=8"], "listen": ["unix:/tmp/kv.sock"]}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("KVBLOCK_")]:
        monkeypatch.delenv(name)


def problems(flags: dict[str, object], file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags, file)
    return list(caught.value.problems)


def test_defaults() -> None:
    config, sources = load_settings(FLAGS)
    assert config.as_toml() == {
        "pools": [
            {
                "name": "main",
                "total": 8,
                "block_size": 16,
                "device": 0,
                "reserved": 0,
                "block_bytes": 0,
                "regions": 1,
                "layout": "",
                "memory": "none",
            }
        ],
        "default_pool": "",
        "insecure": False,
        "tls_cert": None,
        "tls_key": None,
        "tls_client_ca": None,
        "access_file": None,
        "unix_mode": "0600",
        "unix_owner": None,
        "unix_group": None,
        "listen": ("unix:/tmp/kv.sock",),
        "metrics_listen": None,
        "grace": 10.0,
        "retry_after": 0.01,
        "lease_ttl_min": 1.0,
        "lease_ttl_max": 3600.0,
        "lease_ttl": 10.0,
        "keepalive_seconds": 30.0,
        "slow_reader_seconds": 30.0,
        "request_seconds": 10.0,
        "state_dir": default_state_dir(),
        "durability": "process",
        "ephemeral": False,
        "memory_dir": "/dev/shm",
        "snapshot_records": 50_000,
        "snapshot_bytes": 67_108_864,
        "former_state_seconds": 604_800.0,
        "log_format": "auto",
        "log_level": "info",
        "message_bytes_max": 4_194_304,
        "blocks_per_request_max": 1_000_000,
        "sequences_per_step_max": 65_536,
        "sequences_per_engine_max": 1_048_576,
        "pools_max": 64,
        "engines_max": 1024,
        "sessions_max": 1024,
        "wait_queue_max": 1024,
        "max_wait_max": 60.0,
        "page_size_max": 10_000,
        "request_ids_max": 65_536,
        "concurrent_calls_max": 4096,
        "health_watches_max": 256,
        "connections_max": 1024,
        "calls_per_connection_max": 4096,
    }
    assert sources.pop("pools") == "--pool"
    assert sources.pop("listen") == "--listen"
    assert set(sources.values()) == {"default"}


def test_a_flag_wins_over_a_variable_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kvblock.toml"
    file.write_text("grace = 1\nretry_after = 1\nengines_max = 1\nlog_level = 'error'\n")
    monkeypatch.setenv("KVBLOCK_GRACE", "2")
    monkeypatch.setenv("KVBLOCK_RETRY_AFTER", "2")
    config, sources = load_settings(FLAGS | {"grace": "3"}, file)
    assert (config.grace, sources["grace"]) == (3.0, "--grace")
    assert (config.retry_after, sources["retry_after"]) == (2.0, "KVBLOCK_RETRY_AFTER")
    assert (config.engines_max, sources["engines_max"]) == (1, str(file))
    assert (config.log_level, sources["log_level"]) == ("error", str(file))
    assert (config.sessions_max, sources["sessions_max"]) == (1024, "default")


def test_a_list_comes_from_one_source_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kvblock.toml"
    file.write_text(
        'listen = ["127.0.0.1:1", "127.0.0.1:2"]\n'
        '[[pools]]\nname = "file"\ntotal = 4096\nblock_size = 32\ndevice = 7\n'
    )
    config = load_settings({}, file).settings
    assert [pool.spec() for pool in config.pools] == ["file:total=4096,block_size=32,device=7"]
    assert config.listen == ("127.0.0.1:1", "127.0.0.1:2")
    monkeypatch.setenv("KVBLOCK_POOLS", "one:total=1 two:total=2")
    monkeypatch.setenv("KVBLOCK_LISTEN", "unix:/a unix:/b")
    config = load_settings({}, file).settings
    assert [pool.name for pool in config.pools] == ["one", "two"]
    assert config.listen == ("unix:/a", "unix:/b")
    assert [pool.name for pool in load_settings(FLAGS, file).settings.pools] == ["main"]


def test_flags_that_were_not_given_count_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVBLOCK_POOLS", "main:total=8")
    flags: dict[str, object] = {"pools": [], "grace": None, "listen": ["unix:/a"]}
    assert load_settings(flags).settings.pools[0].total_blocks == 8


@pytest.mark.parametrize(
    ("variable", "guess"),
    [
        ("KVBLOCK_LISTNE", "; did you mean KVBLOCK_LISTEN?"),
        ("KVBLOCK_POOL", "; did you mean KVBLOCK_POOLS?"),
        ("KVBLOCK_QQQQ", "; a variable that is not the server's begins with KVBLOCK_PLUGIN_"),
    ],
)
def test_unknown_variables_are_errors(
    monkeypatch: pytest.MonkeyPatch, variable: str, guess: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert problems(FLAGS) == [f"{variable}: no such variable{guess}"]


@pytest.mark.parametrize(
    "variable",
    [
        "KVBLOCK_ADDRESS",
        "KVBLOCK_TOKEN_FILE",
        "KVBLOCK_TLS",
        "KVBLOCK_TLS_CA",
        "KVBLOCK_CLIENT_CERT",
        "KVBLOCK_CLIENT_KEY",
        "KVBLOCK_SERVICE_HOST",
        "KVBLOCK_SERVICE_PORT",
        "KVBLOCK_SERVICE_PORT_GRPC",
        "KVBLOCK_PORT",
        "KVBLOCK_PORT_50051_TCP",
        "KVBLOCK_PORT_50051_TCP_ADDR",
        "KVBLOCK_PLUGIN_LISTEN",
        "KVBLOCK_VLLM_X",
        "KVBLOCK_SGLANG_STATE_DIR",
        "XKVBLOCK_LISTNE",
    ],
)
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:50051")
    load_settings(FLAGS)


def test_no_setting_is_named_like_a_variable_of_a_plug_in() -> None:
    for name in load_settings(FLAGS).settings.as_toml():
        assert not f"KVBLOCK_{name.upper()}_".startswith(PLUGIN_PREFIXES)


def test_empty_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVBLOCK_GRACE", "")
    monkeypatch.setenv("KVBLOCK_CONFIG", "")
    assert load_settings(FLAGS).settings.grace == 10.0


def test_a_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("grace = 4\n")
    (tmp_path / "b.toml").write_text("grace = 5\n")
    monkeypatch.setenv("KVBLOCK_CONFIG", str(tmp_path / "a.toml"))
    assert load_settings(FLAGS).settings.grace == 4.0
    assert load_settings(FLAGS, tmp_path / "b.toml").settings.grace == 5.0
    monkeypatch.setenv("KVBLOCK_CONFIG", "/nowhere.toml")
    assert problems(FLAGS) == ["KVBLOCK_CONFIG /nowhere.toml: No such file or directory"]


def test_unknown_keys_of_the_file_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "kvblock.toml"
    file.write_text("retry_afer = 1\n[[pools]]\nname = 'a'\ntotal = 1\ngrace = 5\n")
    assert problems({"listen": ["unix:/a"]}, file) == [
        f"{file}: retry_afer: no such key; did you mean retry_after?",
        f'{file}: pools[0] = {{"name": "a", "total": 1, "grace": 5}}: has the unknown key'
        " 'grace'; a pool has name, total, block_size, device, reserved, block_bytes, regions,"
        " layout, memory, quarantine (the server's own keys stand above the first [[pools]])",
    ]


def test_a_file_that_cannot_be_read_is_the_only_problem(tmp_path: Path) -> None:
    missing, folder, broken = tmp_path / "missing.toml", tmp_path, tmp_path / "broken.toml"
    broken.write_bytes(b"grace = \n")
    assert problems({}, missing) == [f"--config {missing}: No such file or directory"]
    assert problems({}, folder) == [f"--config {folder}: is a directory; must be a regular file"]
    os.mkfifo(tmp_path / "fifo")
    fifo = tmp_path / "fifo"
    assert problems({}, fifo) == [f"--config {fifo}: is a FIFO; must be a regular file"]
    (problem,) = problems({}, broken)
    assert problem.startswith(f"{broken}: no valid TOML: ")
    broken.write_bytes(b"\xff\xfe")
    (problem,) = problems({}, broken)
    assert problem.startswith(f"{broken}: no valid TOML: ")
    for nested in ("grace = " + "[" * 100_000, "pools" + ".a" * 2_000 + " = 1"):
        broken.write_text(nested)
        told = f"{broken}: lists and tables are nested deeper than 16"
        assert problems({}, broken) == [told]


def test_all_problems_are_told_at_once_with_their_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kvblock.toml"
    file.write_text("engines_max = [1]\n")
    monkeypatch.setenv("KVBLOCK_GRACE", "soon")
    flags: dict[str, object] = {"pools": ["a:total=0", "b:total=1"], "listen": ["foo"]}
    assert problems(flags, file) == [
        "--pool a:total=0: total 0 must be a whole number from 1 to 2147483647",
        "--listen foo: must be unix:PATH, HOST:PORT or [IPv6]:PORT",
        "KVBLOCK_GRACE=soon: must be a number of seconds from 0 to 3600",
        f"{file}: engines_max = [1]: must be a whole number from 1 to 1048576",
    ]


def test_a_pool_is_needed() -> None:
    needed = "pools: not given; give at least one, for instance --pool NAME:total=BLOCKS"
    assert problems({"listen": ["unix:/a"]}) == [needed]


def test_where_it_listens_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen() -> tuple[str, ...]:
        return load_settings({"pools": ["a:total=1"]}).settings.listen

    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert listen() == ("unix:/run/kvblock.sock",)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert listen() == ("unix:/run/user/7/kvblock.sock",)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert problems({"pools": ["a:total=1"]}) == [
        "listen: not given; give at least one, for instance --listen unix:PATH"
    ]


def test_a_configuration_does_not_change() -> None:
    config = load_settings(FLAGS).settings
    assert isinstance(config, ServerSettings)
    for part in (config, config.pools[0]):
        with pytest.raises(ValueError, match="frozen"):
            part.__setattr__(next(iter(type(part).model_fields)), 1)

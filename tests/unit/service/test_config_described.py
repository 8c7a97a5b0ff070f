"""What people read about the settings: every field says enough of itself."""

from kvblock_service.config.described import described, settings_table
from kvblock_service.config.model import ServerSettings


def test_every_setting_is_described_once_in_the_order_of_the_panels() -> None:
    found = list(described())
    assert sorted(one.name for one in found) == sorted(ServerSettings.model_fields)
    panels = [one.panel for one in found]
    assert list(dict.fromkeys(panels)) == [
        "Pools and addresses",
        "Access",
        "Behaviour",
        "State",
        "Limits",
    ]
    assert panels == sorted(panels, key=list(dict.fromkeys(panels)).index)
    assert [one.name for one in found[:4]] == ["pools", "default_pool", "listen", "metrics_listen"]
    for one in found:
        assert one.meaning.endswith("."), one.name
        assert one.takes, one.name
        assert one.metavar or one.is_switch, one.name
        assert one.variable == f"KVBLOCK_{one.name.upper()}"
    assert [one.name for one in found if one.is_list] == ["pools", "listen"]
    assert [one.name for one in found if one.is_switch] == ["insecure", "ephemeral"]


def test_rows_tell_bounds_defaults_and_meanings() -> None:
    rows = settings_table().splitlines()
    assert "| Setting | Takes | Default | Meaning |" in rows
    for row in (
        "| `retry_after` | a number of seconds from 0 to 60 | `0.01` |"
        " When a refused client should try again. |",
        "| `ephemeral` | true or false | `false` |"
        " Keep no journal: a restart begins with empty pools. |",
        "| `metrics_listen` | `HOST:PORT` | nowhere | Where Prometheus may scrape. |",
        "| `snapshot_bytes` | a whole number from 1 to 1125899906842624 | `67108864` |"
        " Bytes in records after which a snapshot is made. |",
    ):
        assert row in rows

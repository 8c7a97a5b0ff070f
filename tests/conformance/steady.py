"""Answers without what differs from run to run."""

from tests.conformance.cases import Json

VOLATILE = {
    "server_epoch",
    "server_version",
    "allocated_blocks_total",
    "freed_blocks_total",
    "reclaimed_blocks_total",
    "refusals",
    "revision",
    "since",
    "epoch",
    "expires_in",
    "lease_expires_in",
    "since_heartbeat",
}


def steady(answer: Json) -> Json:
    """An answer without what differs from run to run.

    A lease has just been renewed, whoever answers with it.
    """
    if "renew_after" in answer:
        left, ttl = (float(answer[key].rstrip("s")) for key in ("expires_in", "ttl"))
        assert ttl - 60 < left <= ttl
    return {
        key: [steady(one) if isinstance(one, dict) else one for one in value]
        if isinstance(value, list)
        else steady(value)
        if isinstance(value, dict)
        else value
        for key, value in answer.items()
        if key not in VOLATILE
    }

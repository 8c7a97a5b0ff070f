"""What the standard `OTEL_*` variables ask for.

Rules:
- An empty variable is an unset one.
- A value that cannot be followed is an error that names the variable, the value and what is legal;
  the SDK itself would fall back to a default, with no more than a line in the log.
- Variables of what is not exported are not looked at.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from kvblock.trusted_file import UnusableFileError, read_file

_RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = (
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
    *_RATIO_SAMPLERS,
)
_QUEUE_SIZE, _BATCH_SIZE = 2048, 512  # the SDK's


class TelemetryError(Exception):
    """The variables ask for something that cannot be done."""


class Wanted(NamedTuple):
    """What is to be exported.

    `traces` and `metrics` are about OTLP, `scrape` is where Prometheus may fetch metrics (None:
    nowhere). `ratio` is the share of root spans that a sampler takes that decides by the trace id,
    None for the other samplers.
    """

    traces: bool
    metrics: bool
    scrape: str | None
    ratio: float | None


def wanted(environ: Mapping[str, str], metrics_listen: str | None) -> Wanted:
    """Read and check the variables; raises TelemetryError when one cannot be followed."""
    variables = {name: value for name, value in environ.items() if value.strip()}
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        if metrics_listen is not None:
            raise TelemetryError(
                f"OTEL_SDK_DISABLED: 'true' leaves nothing to be scraped at {metrics_listen};"
                " unset it, or set no metrics_listen"
            )
        return Wanted(False, False, None, None)
    traces = _exports("TRACES", variables, ("otlp", "none"))
    metrics = _exports("METRICS", variables, ("otlp", "prometheus", "none"))
    if "prometheus" in metrics and metrics_listen is None:
        raise TelemetryError(
            "OTEL_METRICS_EXPORTER: 'prometheus' needs an address to be scraped at; set"
            " --metrics-listen HOST:PORT"
        )
    answer = Wanted("otlp" in traces, "otlp" in metrics, metrics_listen, None)
    for name, check in _checks(answer).items():
        if name in variables:
            check(name, variables[name])
    if answer.traces:
        _check_batches(variables)
        if variables.get("OTEL_TRACES_SAMPLER", "").lower() in _RATIO_SAMPLERS:
            answer = answer._replace(ratio=float(variables.get("OTEL_TRACES_SAMPLER_ARG", 1.0)))
    return answer


def _exports(signal: str, variables: Mapping[str, str], legal: tuple[str, ...]) -> set[str]:
    name = f"OTEL_{signal}_EXPORTER"
    if name not in variables:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return {"otlp"} if any(endpoint in variables for endpoint in endpoints) else set()
    exporters = {exporter.strip().lower() for exporter in variables[name].split(",")}
    for exporter in sorted(exporters):
        _one_of(*legal)(name, exporter)
    return exporters


_Check = Callable[[str, str], None]


def _checks(answer: Wanted) -> dict[str, _Check]:
    """The variables that what is wanted depends on."""
    checks: dict[str, _Check] = {}
    if answer.traces or answer.metrics or answer.scrape:
        problem = "is not read here; use the other OTEL_* variables"
        checks["OTEL_CONFIG_FILE"] = _check(problem, lambda _: False)
    if answer.traces:
        parts = ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
        checks |= _otlp_checks("TRACES_") | {
            "OTEL_TRACES_SAMPLER": _one_of(*_SAMPLERS),
            "OTEL_TRACES_SAMPLER_ARG": _number(0, 1),
            **{f"OTEL_BSP_{part}": _whole for part in parts},
        }
    if answer.metrics:
        prefix = "OTEL_EXPORTER_OTLP_METRICS_"
        aggregations = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
        checks |= _otlp_checks("METRICS_") | {
            "OTEL_METRIC_EXPORT_INTERVAL": _whole,
            "OTEL_METRIC_EXPORT_TIMEOUT": _whole,
            f"{prefix}TEMPORALITY_PREFERENCE": _one_of("cumulative", "delta", "lowmemory"),
            f"{prefix}DEFAULT_HISTOGRAM_AGGREGATION": _one_of(*aggregations),
        }
    if answer.metrics or answer.scrape:
        checks["OTEL_METRICS_EXEMPLAR_FILTER"] = _one_of("always_on", "always_off", "trace_based")
    return checks


def _otlp_checks(signal: str) -> dict[str, _Check]:
    of_one = {
        "PROTOCOL": _one_of("grpc"),
        "ENDPOINT": _endpoint,
        "INSECURE": _one_of("true", "false"),
        "COMPRESSION": _one_of("gzip"),
        "TIMEOUT": _number(0.001, 3600),
        **dict.fromkeys(("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"), _file),
    }
    prefixes = ("OTEL_EXPORTER_OTLP_", f"OTEL_EXPORTER_OTLP_{signal}")
    return {f"{prefix}{name}": check for prefix in prefixes for name, check in of_one.items()}


def _check_batches(variables: Mapping[str, str]) -> None:
    queue = int(variables.get("OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SIZE))
    batch = int(variables.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH_SIZE))
    if batch > queue:
        raise TelemetryError(
            f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: {batch} must not be more than"
            f" OTEL_BSP_MAX_QUEUE_SIZE, {queue}"
        )


def _check(problem: str, is_legal: Callable[[str], bool]) -> _Check:
    """A value for which `is_legal` raises ValueError is none, too."""

    def check(name: str, value: str) -> None:
        legal = False
        with suppress(ValueError):
            legal = is_legal(value)
        if not legal:
            raise TelemetryError(f"{name}: {value!r} {problem}")

    return check


def _one_of(*legal: str) -> _Check:
    return _check(f"must be one of: {', '.join(legal)}", lambda value: value.lower() in legal)


def _number(least: float, most: float) -> _Check:
    problem = f"must be a number from {least} to {most}"
    return _check(problem, lambda value: least <= float(value) <= most)


_whole = _check(
    f"must be a whole number from 1 to {2**31 - 1}",
    lambda value: value.isascii() and value.isdigit() and 0 < int(value) < 2**31,
)


def _is_endpoint(value: str) -> bool:
    url = urlsplit(value)
    return url.scheme not in ("http", "https") or (bool(url.hostname) and url.port != 0)


_endpoint = _check("must be a URL such as http://127.0.0.1:4317", _is_endpoint)


def _file(name: str, value: str) -> None:
    try:
        read_file(value)
    except UnusableFileError as error:
        raise TelemetryError(f"{name}: {value!r} cannot be read: {error}") from error

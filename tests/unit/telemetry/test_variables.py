import pytest

from kvblock_service.telemetry.variables import TelemetryError, Wanted, wanted

NOTHING = Wanted(traces=False, metrics=False, scrape=None, ratio=None)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
URL = "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    ("environ", "listen", "expected"),
    [
        ({}, None, NOTHING),
        ({ENDPOINT: " "}, None, NOTHING),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, None, NOTHING),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": URL}, None, NOTHING),
        ({ENDPOINT: URL}, None, Wanted(True, True, None, None)),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "TRUE"}, None, NOTHING),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "false"}, None, Wanted(True, True, None, None)),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none"}, None, Wanted(False, True, None, None)),
        ({"OTEL_TRACES_EXPORTER": "OTLP"}, None, Wanted(True, False, None, None)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, None, Wanted(True, False, None, None)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, None, Wanted(False, True, None, None)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None, Wanted(True, False, None, None)),
        ({}, "127.0.0.1:0", Wanted(False, False, "127.0.0.1:0", None)),
        (
            {"OTEL_METRICS_EXPORTER": "prometheus"},
            "127.0.0.1:0",
            Wanted(False, False, "127.0.0.1:0", None),
        ),
        (
            {"OTEL_METRICS_EXPORTER": "otlp, prometheus"},
            "127.0.0.1:0",
            Wanted(False, True, "127.0.0.1:0", None),
        ),
        (
            {ENDPOINT: URL, "OTEL_TRACES_SAMPLER": "traceidratio"},
            None,
            Wanted(True, True, None, 1.0),
        ),
        (
            {
                ENDPOINT: URL,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
            },
            None,
            Wanted(True, True, None, 0.01),
        ),
        ({ENDPOINT: "localhost:4317"}, None, Wanted(True, True, None, None)),
    ],
)
def test_what_is_wanted(environ: dict[str, str], listen: str | None, expected: Wanted) -> None:
    assert wanted(environ, listen) == expected


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, "must be one of: otlp, none"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "--metrics-listen"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "must be one of: grpc"),
        ({ENDPOINT: "http://"}, "must be a URL"),
        ({ENDPOINT: "http://h:99999"}, "must be a URL"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "must be one of: always_on"),
        ({"OTEL_TRACES_SAMPLER_ARG": "1.5"}, "must be a number from 0 to 1"),
        ({"OTEL_TRACES_SAMPLER_ARG": "nan"}, "must be a number from 0 to 1"),
        ({"OTEL_TRACES_SAMPLER_ARG": "half"}, "must be a number from 0 to 1"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "must be a whole number"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, "512 must not be more than"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1s"}, "must be a whole number"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "brotli"}, "must be one of: gzip"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "must be a number"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/does/not/exist"}, "No such file"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/dev/zero"}, "is a device; must be a regular file"),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "some"}, "must be one of: always_on"),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, "is not read here"),
    ],
)
def test_what_cannot_be_followed_is_named(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(TelemetryError) as raised:
        wanted({ENDPOINT: URL} | environ, None)
    assert problem in str(raised.value)
    assert any(name in str(raised.value) for name in environ)


def test_variables_of_what_is_not_exported_are_not_looked_at() -> None:
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_SAMPLER": "mine"}
    assert wanted(environ, "127.0.0.1:0") == Wanted(False, False, "127.0.0.1:0", None)

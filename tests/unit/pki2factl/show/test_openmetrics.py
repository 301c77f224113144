"""The OpenMetrics text, read by Prometheus's own reference parser."""

from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from pki2factl.show import openmetrics

ANSWER: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 1,
    "started": 1_700_000_000,
    "uptime": 60,
    "ready": True,
    "accounts": 12,
    "locked": False,
    "throttling": True,
    "clock": "synchronised",
    "clock_behind": 3,
    "unavailable_until": None,
    "log_dropped": 17,
    "trouble": [{"what": "reload", "since": 1_700_000_000, "reason": None}],
    "connections": 4,
    "last_code": 1_700_000_040,
    "requests": {"verify": {"ok": 5, "invalid": 2, "throttled": 0}, "load": {"bad_seal": 1}},
    "bounds": [25, 100, 1_000_000],
    "latencies": {"verify": [3, 2, 1, 1], "load": [0, 0, 0, 1]},
    "microseconds": {"verify": 2_345_678, "load": 1_600_000},
}


def families(text: str) -> dict[str, Metric]:
    """What the parser finds; it raises for what is not valid."""
    return {family.name.removeprefix("pki2fad_"): family for family in parse(text)}


def only(family: Metric) -> float:
    (sample,) = family.samples
    assert sample.labels == {}
    return float(sample.value)


def test_every_number_is_where_it_belongs() -> None:
    found = families(openmetrics.text(ANSWER))
    assert {
        name: only(found[name]) for name in found if found[name].type == "gauge" and name != "build_info"
    } == {
        "up": 1,
        "start_time_seconds": 1_700_000_000,
        "uptime_seconds": 60,
        "accounts": 12,
        "locked": 0,
        "troubles": 1,
        "throttling": 1,
        "connections": 4,
        "clock_synchronised": 1,
        "clock_behind_seconds": 3,
        "verify_unavailable_until_timestamp_seconds": 0,
        "minute_log_last_code_timestamp_seconds": 1_700_000_040,
    }
    assert found["build_info"].samples[0].labels == {"version": "0.1.0"}
    assert found["log_dropped_lines"].type == "counter"
    assert only(found["log_dropped_lines"]) == 17
    assert found["requests"].type == "counter"
    assert {tuple(one.labels.values()): one.value for one in found["requests"].samples} == {
        ("verify", "ok"): 5,
        ("verify", "invalid"): 2,
        ("verify", "throttled"): 0,
        ("load", "bad_seal"): 1,
    }


def test_the_histogram_is_cumulative_and_in_seconds() -> None:
    family = families(openmetrics.text(ANSWER))["request_duration_seconds"]
    assert (family.type, family.unit) == ("histogram", "seconds")
    of_verify = [
        (one.name.rpartition("_")[2], one.labels.get("le"), one.value)
        for one in family.samples
        if one.labels["method"] == "verify"
    ]
    assert of_verify == [
        ("bucket", "2.5e-05", 3),
        ("bucket", "0.0001", 5),
        ("bucket", "1.0", 6),
        ("bucket", "+Inf", 7),
        ("count", None, 7),
        ("sum", None, 2.345678),
    ]


def test_what_is_not_there_is_left_out_or_0() -> None:
    found = families(openmetrics.text({**ANSWER, "last_code": None, "clock": "unknown"}))
    assert "minute_log_last_code_timestamp_seconds" not in found
    assert only(found["clock_synchronised"]) == 0


def test_without_a_daemon_there_is_only_that() -> None:
    assert {name: only(family) for name, family in families(openmetrics.unreachable()).items()} == {"up": 0}


@pytest.mark.parametrize("version", ['1"2', "1\\2", "1\n2", "1\\n2", 'x"} 1\npki2fad_up 0'])
def test_no_text_breaks_out_of_its_label(version: str) -> None:
    found = families(openmetrics.text({**ANSWER, "version": version}))
    assert found["build_info"].samples[0].labels == {"version": version}
    assert only(found["up"]) == 1


def test_the_parser_would_notice_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="EOF"):
        families(openmetrics.text(ANSWER).removesuffix("# EOF\n"))

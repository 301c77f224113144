"""Formats the daemon's counts as OpenMetrics text.

It uses no library: that would be a dependency of every host, for a few lines of text. The tests check it with
Prometheus's own parser. It uses only what a parser of the older text format accepts too, so that
node_exporter can read it from a file: no `info`, no `stateset`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Sample = tuple[str, dict[str, str], float]  # what follows the family's name, labels, value

_UP = "Whether the daemon answered."
_END = "# EOF\n"


def unreachable() -> str:
    """The text for when no daemon answers."""
    return "".join(_family("up", "gauge", _UP, [("", {}, 0)])) + _END


def text(metrics: "dict[str, Any]") -> str:
    """The text for the daemon's answer to `metrics`."""
    return "".join(line for family in _families(metrics) for line in _family(*family)) + _END


def _families(metrics: "dict[str, Any]") -> "Iterator[tuple[str, str, str, Iterable[Sample]]]":
    yield "up", "gauge", _UP, _one(1)
    yield "build_info", "gauge", "The daemon's version.", [("", {"version": metrics["version"]}, 1)]
    yield (
        "start_time_seconds",
        "gauge",
        "When the daemon started, by its clock then.",
        _one(metrics["started"]),
    )
    yield "uptime_seconds", "gauge", "For how long the daemon has run.", _one(metrics["uptime"])
    yield "accounts", "gauge", "The number of accounts.", _one(metrics["accounts"])
    yield "locked", "gauge", "Whether the keys are locked.", _one(metrics["locked"])
    yield "throttling", "gauge", "Whether wrong codes are throttled.", _one(metrics["throttling"])
    yield "connections", "gauge", "Open connections.", _one(metrics["connections"])
    yield (
        "clock_synchronised",
        "gauge",
        "Whether the clock is known to have been set from a server.",
        _one(metrics["clock"] == "synchronised"),
    )
    yield (
        "clock_behind_seconds",
        "gauge",
        "How far the clock is behind its earlier time.",
        _one(metrics["clock_behind"]),
    )
    yield (
        "verify_unavailable_until_timestamp_seconds",
        "gauge",
        "The Unix time from which all accounts can be verified, 0 if they can now.",
        _one(metrics["unavailable_until"] or 0),
    )
    if metrics["last_code"] is not None:
        yield (
            "minute_log_last_code_timestamp_seconds",
            "gauge",
            "The minute of the last code in the minute log, the oldest of several, 0 if there is none.",
            _one(metrics["last_code"]),
        )
    yield (
        "troubles",
        "gauge",
        "The number of troubles in the daemon's status.",
        _one(len(metrics["trouble"])),
    )
    yield (
        "log_dropped_lines",
        "counter",
        "Lines of the log that were dropped for lack of room.",
        [("_total", {}, metrics["log_dropped"])],
    )
    yield "requests", "counter", "Answered requests.", _requests(metrics)
    yield (
        "request_duration_seconds",
        "histogram",
        "The time from taking up a request to its answer.",
        _durations(metrics),
    )


def _one(value: float) -> "list[Sample]":
    return [("", {}, value)]


def _requests(metrics: "dict[str, Any]") -> "Iterator[Sample]":
    for method, outcomes in metrics["requests"].items():
        for outcome, count in outcomes.items():
            yield "_total", {"method": method, "outcome": outcome}, count


def _durations(metrics: "dict[str, Any]") -> "Iterator[Sample]":
    bounds = [repr(bound / 1e6) for bound in metrics["bounds"]]
    for method, counts in metrics["latencies"].items():
        total = 0
        for bound, count in zip([*bounds, "+Inf"], counts, strict=True):
            total += count
            yield "_bucket", {"method": method, "le": bound}, total
        yield "_count", {"method": method}, total
        yield "_sum", {"method": method}, metrics["microseconds"][method] / 1e6


def _family(name: str, kind: str, meaning: str, samples: "Iterable[Sample]") -> "Iterator[str]":
    yield f"# TYPE pki2fad_{name} {kind}\n"
    if name.endswith("_seconds"):
        yield f"# UNIT pki2fad_{name} seconds\n"
    yield f"# HELP pki2fad_{name} {meaning}\n"
    for suffix, labels, value in samples:
        labelled = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"pki2fad_{name}{suffix}{f'{{{labelled}}}' if labelled else ''} {value + 0}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

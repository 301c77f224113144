"""A time carries its offset, wherever the machine is."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from pki2fad import times

WINTER, SUMMER = 1_769_862_896, 1_785_500_096
NEARLY_10000 = 253_402_041_600  # 9999-12-30: datetime of Python 3.12 looks at the day after


@pytest.fixture(params=["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0545>-5:45", "NST3:30NDT,M3.2.0,M11.1.0"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("seconds", [0, WINTER, SUMMER, NEARLY_10000])
def test_a_time_is_local_and_reads_back_as_itself(seconds: int) -> None:
    text = times.moment(seconds)
    assert text == datetime.fromtimestamp(seconds).astimezone().isoformat()
    assert datetime.fromisoformat(text).timestamp() == seconds


def test_the_form_is_that_of_rfc_3339(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert times.moment(WINTER + 0.9) == "2026-01-31T13:34:56+01:00"
        assert times.moment(SUMMER)[-6:] == "+02:00"
    finally:
        monkeypatch.undo()
        time.tzset()

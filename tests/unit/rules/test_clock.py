"""What is known of the wall clock, from looks at both clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2fad.rules.clock import Interval, Reading, Watch

START = 1_700_000_000.0
HOUR = 3600.0
DAY = 86_400.0


class Clocks:
    """Two clocks, and a watch that looks at them; nobody sets `uptime`."""

    def __init__(
        self,
        mark: float | None = None,
        stretches: list[Interval] | None = None,
        spent: list[Interval] | None = None,
        *,
        synchronised: bool | None = None,
    ) -> None:
        self.wall = START
        self.uptime = 100.0
        self.synchronised = synchronised
        self.watch = Watch(mark, stretches or [], spent or [], Reading(self.wall, self.uptime))

    def look(self, passed: float = 0.0, by: float = 0.0) -> float:
        """Look when so much time has passed and the clock was set by so much meanwhile."""
        self.wall += passed + by
        self.uptime += passed
        return self.watch.look(Reading(self.wall, self.uptime), self.synchronised)


def rounded(watch: Watch) -> list[Interval]:
    """The stretches in seconds since START, in order."""
    return sorted((round(start - START, 3), round(end - START, 3)) for start, end in watch.stretches)


# The mark


def test_without_a_record_the_first_reading_is_believed() -> None:
    assert Clocks().watch.mark == START


def test_the_mark_of_the_record_goes_before_the_clock() -> None:
    assert Clocks(mark=START + HOUR).watch.mark == START + HOUR
    assert Clocks(mark=START - HOUR).watch.mark == START - HOUR


@pytest.mark.parametrize("synchronised", [True, None])
def test_the_mark_goes_with_the_clock(synchronised: bool | None) -> None:
    clocks = Clocks(synchronised=synchronised)
    for _ in range(10):
        clocks.look(1.0)
    assert clocks.watch.mark == START + 10
    clocks.look(3 * DAY)  # suspended, say
    assert clocks.watch.mark == START + 10 + 3 * DAY


def test_a_synchronised_clock_that_is_set_forward_takes_the_mark_along() -> None:
    clocks = Clocks(synchronised=True)
    clocks.look(1.0, by=HOUR)
    assert clocks.watch.mark == START + 1 + HOUR


def test_where_synchronisation_is_unknown_the_mark_rises_only_as_time_passes() -> None:
    clocks = Clocks()
    clocks.look(1.0, by=HOUR)
    assert clocks.watch.mark == START + 1
    clocks.look(10.0)
    assert clocks.watch.mark == START + 11


def test_a_clock_that_is_synchronised_later_is_believed_then() -> None:
    clocks = Clocks()
    clocks.look(1.0, by=HOUR)
    clocks.synchronised = True
    clocks.look(1.0)
    assert clocks.watch.synchronised is True
    assert clocks.watch.mark == START + 2 + HOUR


def test_a_mark_below_the_clock_rises_from_there_as_time_passes() -> None:
    clocks = Clocks(mark=START - HOUR)  # the machine was off for an hour
    clocks.look(10.0)
    assert clocks.watch.mark == START - HOUR + 10


@pytest.mark.parametrize("synchronised", [True, None])
def test_the_mark_stays_where_it_was_when_the_clock_is_set_back(synchronised: bool | None) -> None:
    clocks = Clocks(synchronised=synchronised)
    clocks.look(1.0, by=-HOUR)
    assert clocks.watch.mark >= START
    assert clocks.watch.behind(clocks.wall) == pytest.approx(HOUR - 1, abs=1)
    clocks.look(HOUR + 10)
    assert clocks.watch.behind(clocks.wall) == 0.0
    assert clocks.watch.mark == clocks.wall


def test_no_time_is_believed_that_is_later_than_the_mark() -> None:
    watch = Clocks().watch
    assert watch.believed(START + HOUR) == START
    assert watch.believed(START - HOUR) == START - HOUR


# Steps


@pytest.mark.parametrize("by", [2.0, -2.0, HOUR, -HOUR])
def test_by_how_much_the_clock_was_set_is_told(by: float) -> None:
    clocks = Clocks()
    assert clocks.look(1.0, by=by) == pytest.approx(by)
    assert clocks.look(1.0) == 0.0


@pytest.mark.parametrize("by", [1.9, -1.9])
def test_slews_pass_unnoticed(by: float) -> None:
    clocks = Clocks()
    assert [clocks.look(1.0, by=by) for _ in range(20)] == [0.0] * 20
    assert len(clocks.watch.stretches) == 1


def test_time_that_passes_without_a_look_is_no_step() -> None:
    clocks = Clocks()
    assert clocks.look(DAY) == 0.0
    assert rounded(clocks.watch) == [(0, DAY)]


# Stretches


def test_the_time_ahead_is_a_stretch_of_its_own_from_the_last_look_on() -> None:
    clocks = Clocks()
    clocks.look(10.0)
    clocks.look(1.0, by=HOUR)  # at any moment of this second
    clocks.look(20.0)
    assert rounded(clocks.watch) == [(0, 10), (HOUR + 10, HOUR + 31)]


def test_a_clock_that_is_set_back_goes_on_with_the_stretch_it_had_left() -> None:
    clocks = Clocks()
    clocks.look(10.0)
    clocks.look(1.0, by=HOUR)
    clocks.look(1.0, by=-HOUR)
    clocks.look(5.0)
    assert rounded(clocks.watch) == [(0, 17), (HOUR + 10, HOUR + 11)]
    assert clocks.watch.first_ahead(clocks.wall) == START + HOUR + 10


def test_a_clock_that_is_set_back_into_a_stretch_leaves_its_end_where_it_was() -> None:
    clocks = Clocks()
    clocks.look(1000.0)
    clocks.look(1.0, by=-500.0)
    assert rounded(clocks.watch) == [(0, 1000)]


def test_a_restart_goes_on_with_a_stretch_that_is_less_than_a_minute_old() -> None:
    for away, stretches in ((59.0, [(-100, 0)]), (61.0, [(-161, -61), (0, 0)])):
        clocks = Clocks(stretches=[(START - 100 - (away == 61) * 61, START - (away == 61) * 61)])
        assert rounded(clocks.watch) == stretches, away


def test_the_many_stretches_of_a_clock_that_jumps_about_stay_bounded() -> None:
    clocks = Clocks()
    walls = []
    for number in range(200):
        clocks.look(1.0, by=1000.0 + number)
        walls.append(clocks.wall)
        assert len(clocks.watch.stretches) <= 32
    for wall in walls:
        assert any(start <= wall <= end for start, end in clocks.watch.stretches), "it was forgotten"
    # Those that lie closest became one; the last ones, which are far apart, are as they were.
    assert rounded(clocks.watch)[-1][0] - rounded(clocks.watch)[-2][1] > 1000


# What was ahead


def test_a_clock_that_was_never_ahead_has_no_first_time_ahead() -> None:
    clocks = Clocks()
    clocks.look(10.0)
    assert clocks.watch.first_ahead(clocks.wall) is None
    assert clocks.watch.first_ahead(clocks.wall + 5) is None


def test_the_first_time_ahead_is_where_the_clock_had_jumped_to() -> None:
    clocks = Clocks()
    for by in (HOUR, HOUR, -2 * HOUR):
        clocks.look(10.0)
        clocks.look(1.0, by=by)
    ahead = clocks.watch.first_ahead(clocks.wall)
    assert ahead is not None
    assert START + HOUR <= ahead <= START + HOUR + 11


def test_within_a_stretch_the_time_ahead_begins_now() -> None:
    clocks = Clocks()
    clocks.look(1000.0)
    clocks.look(1.0, by=-500.0)
    assert clocks.watch.first_ahead(clocks.wall) == clocks.wall


def test_a_stretch_of_the_record_counts_as_one_of_now() -> None:
    clocks = Clocks(stretches=[(START + HOUR, START + HOUR + 1), (START - 10, START)])
    assert clocks.watch.first_ahead(START + 5) == START + HOUR


def test_a_spent_interval_counts_with_a_margin_on_both_sides() -> None:
    watch = Clocks(spent=[(START + 100, START + 200)]).watch
    assert watch.spent_until(START + 40, 60) is None
    assert watch.spent_until(START + 41, 60) == START + 260
    assert watch.spent_until(START + 259, 60) == START + 260
    assert watch.spent_until(START + 260, 60) is None


def test_of_spent_intervals_that_overlap_the_last_end_counts() -> None:
    watch = Clocks(spent=[(START, START + 500), (START + 100, START + 200), (START + 900, START + 999)]).watch
    assert watch.spent_until(START + 150, 0) == START + 500


# Accepting the clock as it is


def test_the_accepted_time_is_the_mark_also_a_lower_one() -> None:
    clocks = Clocks(synchronised=True)
    clocks.look(1.0, by=HOUR)
    clocks.look(1.0, by=-HOUR)
    clocks.watch.accept(clocks.wall, None)
    assert (clocks.watch.mark, clocks.watch.accepted) == (clocks.wall, 1)
    assert clocks.watch.behind(clocks.wall) == 0.0
    clocks.look(5.0)
    assert clocks.watch.mark == clocks.wall


def test_what_was_ahead_of_the_accepted_time_is_a_spent_interval_and_no_stretch() -> None:
    old = (START - 2000, START - 1000)
    clocks = Clocks(spent=[old])
    clocks.look(1.0, by=HOUR)
    clocks.look(1.0, by=-HOUR)
    new = (START + HOUR, START + HOUR + 60)
    clocks.watch.accept(clocks.wall, new)
    assert clocks.watch.spent == [old, new]  # the clock may be set back once more
    assert clocks.watch.first_ahead(clocks.wall) is None
    assert rounded(clocks.watch) == [(0, 2)]


def test_accepting_cuts_the_stretch_that_went_on_beyond() -> None:
    clocks = Clocks()
    clocks.look(1000.0)
    clocks.look(1.0, by=-500.0)
    clocks.watch.accept(clocks.wall, None)
    assert rounded(clocks.watch) == [(0, 501)]


# Properties

LOOKS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 1.0, 40.0, HOUR]),
        st.one_of(st.just(0.0), st.floats(-3, 3), st.floats(-5000, 5000)),
        st.sampled_from([True, None]),
    ),
    max_size=80,
)


@given(LOOKS)
def test_the_mark_never_falls_and_every_time_shown_is_in_a_stretch(
    looks: list[tuple[float, float, bool | None]],
) -> None:
    clocks = Clocks()
    walls = [clocks.wall]
    for passed, by, clocks.synchronised in looks:
        before = clocks.watch.mark
        clocks.look(passed, by)
        walls.append(clocks.wall)
        assert clocks.watch.mark >= before
        assert clocks.watch.mark <= max(before + passed, clocks.wall)
        assert clocks.synchronised is None or clocks.watch.mark >= clocks.wall
        assert len(clocks.watch.stretches) <= 32
    for wall in walls:
        assert any(start <= wall <= end for start, end in clocks.watch.stretches)
        first = clocks.watch.first_ahead(wall - 0.001)
        assert first is not None
        assert first <= wall


@given(LOOKS)
def test_where_nothing_is_synchronised_the_mark_rises_no_faster_than_time(
    looks: list[tuple[float, float, bool | None]],
) -> None:
    clocks = Clocks()
    for passed, by, _ in looks:
        clocks.look(passed, by)
        assert clocks.watch.mark <= START + clocks.uptime - 100.0 + 0.001

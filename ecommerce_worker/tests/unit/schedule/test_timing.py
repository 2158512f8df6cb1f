"""When something is due: tables, and what must hold of any time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.schedule.entries import Entry, timing_of
from ecommerce_worker.schedule.timing import Every

BERLIN = ZoneInfo('Europe/Berlin')


def at(text, zone=UTC):
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def cron(text, zone=UTC):
    return timing_of(Entry('job', 'task', crontab=text), zone)


@pytest.mark.parametrize('text, now, latest, coming', [
    ('* * * * *', '2026-11-21T10:00:30', '2026-11-21T10:00', '2026-11-21T10:01'),
    ('* * * * *', '2026-11-21T10:00:00', '2026-11-21T10:00', '2026-11-21T10:01'),
    ('0 10 * * *', '2026-11-21T09:59:59', '2026-11-20T10:00', '2026-11-21T10:00'),
    ('0 10 * * *', '2026-12-31T23:00', '2026-12-31T10:00', '2027-01-01T10:00'),
    ('*/20 9-10 * * mon-fri', '2026-11-21T12:00', '2026-11-20T10:40', '2026-11-23T09:00'),
    ('0 3 * * sun', '2026-11-21T12:00', '2026-11-15T03:00', '2026-11-22T03:00'),
    ('0 3 * * 0', '2026-11-22T03:00', '2026-11-22T03:00', '2026-11-29T03:00'),
    ('0 0 29 2 *', '2026-11-21T12:00', '2024-02-29T00:00', '2028-02-29T00:00'),
    ('0 0 13 * fri', '2026-11-21T12:00', '2026-11-13T00:00', '2027-08-13T00:00'),
])
def test_a_crontab_is_due_when_it_says(text, now, latest, coming):
    assert cron(text).latest(at(now)) == at(latest)
    assert cron(text).coming(at(now)) == at(coming)


def test_a_crontab_is_read_in_the_clock_of_its_zone():
    assert cron('0 10 * * *', BERLIN).coming(at('2026-07-01T00:00')) == at('2026-07-01T08:00')
    assert cron('0 10 * * *', BERLIN).coming(at('2026-12-01T00:00')) == at('2026-12-01T09:00')
    assert cron('30 0 * * *', BERLIN).latest(at('2026-12-01T23:45')) == at('2026-12-01T23:30')


def test_a_time_that_the_clock_repeats_or_leaves_out_comes_once():
    autumn = cron('30 2 * * *', BERLIN)
    assert autumn.coming(at('2026-10-25T00:00')) == at('2026-10-25T00:30')
    assert autumn.coming(at('2026-10-25T00:30')) == at('2026-10-26T01:30')
    spring = cron('30 2 * * *', BERLIN)
    assert spring.coming(at('2026-03-28T12:00')) == at('2026-03-29T01:30')
    assert spring.coming(at('2026-03-29T01:30')) == at('2026-03-30T00:30')


@pytest.mark.parametrize('text, day, due', [
    # In autumn 02:00 to 02:59 is shown twice (00:00 and 01:00 UTC), in spring not at all.
    ('*/15 * * * *', '2026-10-25', [f'{hour:02}:{minute:02}' for hour in range(4) for minute in (0, 15, 30, 45)]),
    ('0 * * * *', '2026-10-25', ['00:00', '01:00', '02:00', '03:00']),
    ('*/30 2 * * *', '2026-10-25', ['00:00', '00:30', '01:00', '01:30']),
    ('30 2 * * *', '2026-10-25', ['00:30']),
    ('0 2,3 * * *', '2026-10-25', ['00:00', '02:00']),
    ('*/15 * * * *', '2026-03-29', [f'{hour:02}:{minute:02}' for hour in range(4) for minute in (0, 15, 30, 45)]),
    ('*/30 2 * * *', '2026-03-29', []),
    ('30 2 * * *', '2026-03-29', ['01:30']),
])
def test_where_the_clock_is_changed_it_is_as_in_cron(text, day, due):
    timing, first, last = cron(text, BERLIN), at(f'{day}T00:00') - 1, at(f'{day}T03:59')
    assert list(steps(timing, first, last)) == [at(f'{day}T{moment}') for moment in due]
    for moment in due:
        assert timing.latest(at(f'{day}T{moment}') + 59) == at(f'{day}T{moment}')


@pytest.mark.parametrize('day', ['2026-03-29', '2026-10-25'])
def test_what_is_due_every_quarter_of_an_hour_is_never_silent_for_longer(day):
    timing, moment = cron('*/15 * * * *', BERLIN), at(f'{day}T00:00') - 7200
    while moment < at(f'{day}T00:00') + 86_400:
        assert timing.coming(moment) - moment == 900
        moment += 900


@pytest.mark.parametrize('now, latest, coming', [(0, 0, 600), (599.9, 0, 600), (600, 600, 1200)])
def test_an_interval_is_counted_from_1970(now, latest, coming):
    assert (Every(600).latest(now), Every(600).coming(now)) == (latest, coming)


@pytest.mark.parametrize('text, first, last, count', [
    ('* * * * *', '2026-11-21T10:00', '2026-11-21T10:01', 0),
    ('* * * * *', '2026-11-21T23:58', '2026-11-22T00:03', 4),
    ('0 10 * * *', '2026-11-21T10:00', '2026-11-24T10:00', 2),
    ('0 3 * * sun', '2026-11-01T03:00', '2026-11-29T03:00', 3),
    ('0 0 29 2 *', '2024-02-29T00:00', '2032-02-29T00:00', 1),
])
def test_what_a_crontab_leaves_out_between_two_times_is_counted(text, first, last, count):
    assert cron(text).between(at(first), at(last)) == count


def test_a_time_that_the_clock_repeats_or_leaves_out_is_counted_once():
    hourly = cron('30 * * * *', BERLIN)
    for day in ('2026-03-29', '2026-10-25'):
        first, last = at(f'{day}T00:30', BERLIN), at(f'{day}T05:30', BERLIN)
        assert hourly.between(first, last) == sum(1 for _ in steps(hourly, first, last)) - 1


def steps(timing, first, last):
    while (first := timing.coming(first)) <= last:
        yield first


@given(st.floats(1, 1e6), st.floats(0, 4e9), st.integers(1, 1000))
def test_of_an_interval_nothing_is_left_out_but_what_is(seconds, now, missed):
    timing = Every(seconds)
    first = timing.latest(now)
    following = timing.latest(first + seconds * 1.5)
    assert timing.between(first, following) == 0
    assert timing.between(first, timing.latest(first + seconds * (missed + 1.5))) == missed


@given(st.sampled_from(['* * * * *', '*/7 3,4 * * *', '0 3 * * sun', '15 10 1 */2 *']),
       st.floats(0, 4e9), st.sampled_from([UTC, BERLIN, ZoneInfo('Asia/Kathmandu'), ZoneInfo('America/St_Johns')]))
def test_whatever_is_due_comes_after_what_was_due(text, now, zone):
    timing = cron(text, zone)
    latest, coming = timing.latest(now), timing.coming(now)
    assert latest is None or latest <= now
    assert coming > now
    if latest is not None:
        assert timing.coming(latest) >= coming or timing.coming(latest) > latest
        assert timing.latest(coming) == coming


@pytest.mark.parametrize('text, reason', [
    ('0 10 * *', '4 fields instead of 5'), ('', '0 fields'), ('@daily', '1 fields'), ('61 * * * *', '61'),
    ('0 25 * * *', '25'), ('x * * * *', "'x'"), ('0 0 31 2 *', 'never'), ('0 0 0 * *', '0'), ('*/0 * * * *', 'zero'),
    ('1,, * * * *', 'empty part'), ('*/ * * * *', 'empty filter'),
])
def test_a_crontab_that_cannot_be_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        cron(text)

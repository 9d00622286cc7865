//! Windows of a calendar: days, weeks or months, several at a time if wanted, in a time zone.
//!
//! Which rule: Beam's `CalendarWindows`. Periods are counted from 1970-01-01 of the zone's own calendar (weeks from the first
//! chosen weekday on or before it, months from January 1970). A window runs from local midnight to local midnight, so that
//! a day is 23 or 25 hours long where clocks change. Where midnight does not exist, the day begins at the first instant
//! that does; where it comes twice, at the first.
//!
//! Zone data is bundled (the `chrono-tz` crate's version of the IANA database), so that the same binary gives the same windows everywhere.

use crate::time::{Duration, Instant};
use crate::window::Window;
pub use chrono::Weekday;
use chrono::{Datelike, Days, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
pub use chrono_tz::{IANA_TZDB_VERSION as TIME_ZONES_VERSION, TZ_VARIANTS as TIME_ZONES, Tz};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// Midnight to midnight.
    Days,
    /// Seven days from a weekday on.
    Weeks {
        /// The first day of a week.
        first: Weekday,
    },
    /// From a day of the month to the same of the next.
    Months {
        /// That day, 1 to 28.
        day: u32,
    },
}

/// Windows of `count` units in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    /// What is counted.
    pub unit: CalendarUnit,
    /// How many of them; at least 1.
    pub count: u32,
    /// Whose calendar.
    pub zone: Tz,
}

const EPOCH: NaiveDate = match NaiveDate::from_ymd_opt(1970, 1, 1) {
    Some(date) => date,
    None => panic!("1970 is a year"),
};

impl Calendar {
    /// The window of an instant. Beyond the years that the calendar can count it is the rest of time.
    pub fn assign(self, time: Instant) -> Window {
        let Some(utc) = chrono::DateTime::<Utc>::from_timestamp_micros(time.micros()) else { return self.edge(time) };
        let date = utc.with_timezone(&self.zone).date_naive();
        let window = self.dates(date).and_then(|(from, to)| Some(Window { start: self.begins(from)?, end: self.begins(to)? }));
        match window {
            Some(window) if window.start <= time && time < window.end => window,
            // A zone that skips or repeats midnight: the neighbour that holds the instant.
            Some(window) => {
                let beside = if time < window.start { date.pred_opt() } else { date.succ_opt() };
                let beside = beside.and_then(|date| self.dates(date));
                beside.and_then(|(from, to)| Some(Window { start: self.begins(from)?, end: self.begins(to)? })).unwrap_or(window)
            }
            None => self.edge(time),
        }
    }

    /// First day of the period of a date, and of the next.
    fn dates(self, date: NaiveDate) -> Option<(NaiveDate, NaiveDate)> {
        let count = i64::from(self.count.max(1));
        match self.unit {
            CalendarUnit::Days => days(date, EPOCH, count),
            CalendarUnit::Weeks { first } => {
                let back = EPOCH.weekday().days_since(first);
                days(date, EPOCH.checked_sub_days(Days::new(u64::from(back)))?, 7 * count)
            }
            CalendarUnit::Months { day } => {
                let mut months = i64::from(date.year() - 1970) * 12 + i64::from(date.month0());
                if date.day() < day {
                    months -= 1;
                }
                let first = months.div_euclid(count) * count;
                let of = |months: i64| {
                    NaiveDate::from_ymd_opt(i32::try_from(1970 + months.div_euclid(12)).ok()?, months.rem_euclid(12) as u32 + 1, day)
                };
                let from = of(first)?;
                Some((from, from.checked_add_months(Months::new(self.count.max(1)))?))
            }
        }
    }

    fn begins(self, date: NaiveDate) -> Option<Instant> {
        let mut local: NaiveDateTime = date.and_time(NaiveTime::MIN);
        // Gaps of a zone are at most a day long and begin on whole minutes.
        for _ in 0..=24 * 60 {
            match self.zone.from_local_datetime(&local) {
                LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => {
                    return Some(Instant::from_micros_saturating(at.timestamp_micros()));
                }
                LocalResult::None => local = local.checked_add_signed(TimeDelta::minutes(1))?,
            }
        }
        None
    }

    fn edge(self, time: Instant) -> Window {
        let year = Duration::from_micros(400 * 86_400_000_000);
        match time.micros() < 0 {
            true => Window { start: Instant::MIN, end: Instant::MIN.saturating_add(year).max(time.saturating_add(year)) },
            false => Window { start: Instant::MAX.saturating_sub(year).min(time), end: Instant::MAX },
        }
    }
}

fn days(date: NaiveDate, origin: NaiveDate, length: i64) -> Option<(NaiveDate, NaiveDate)> {
    let number = date.signed_duration_since(origin).num_days().div_euclid(length);
    let from = origin.checked_add_signed(TimeDelta::try_days(number.checked_mul(length)?)?)?;
    Some((from, from.checked_add_signed(TimeDelta::try_days(length)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Instant {
        Instant::parse_rfc3339(text).expect("a time")
    }

    fn check(unit: CalendarUnit, count: u32, zone: Tz, time: &str, start: &str, end: &str) {
        let window = Calendar { unit, count, zone }.assign(at(time));
        assert_eq!((window.start, window.end), (at(start), at(end)), "{time} by {count} {unit:?} in {zone}");
    }

    /// Bounds looked up in the zones' published rules.
    #[test]
    fn follows_the_calendar_of_the_zone() {
        use CalendarUnit::*;
        let berlin = chrono_tz::Europe::Berlin;
        check(Days, 1, Tz::UTC, "2026-01-31T12:00:00Z", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z");
        // Clocks go forward on 29 March 2026: 23 hours; back on 25 October: 25.
        check(Days, 1, berlin, "2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Days, 1, berlin, "2026-10-25T10:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Weeks { first: Weekday::Mon }, 1, Tz::UTC, "2026-11-21T07:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Months { day: 1 }, 1, berlin, "2026-02-10T00:00:00Z", "2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z");
        check(Months { day: 15 }, 1, Tz::UTC, "2026-02-10T00:00:00Z", "2026-01-15T00:00:00Z", "2026-02-15T00:00:00Z");
        check(Months { day: 1 }, 3, Tz::UTC, "2026-05-10T00:00:00Z", "2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z");
        // Beirut skips midnight when summer begins.
        let beirut = chrono_tz::Asia::Beirut;
        check(Days, 1, beirut, "2022-03-27T10:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z");
        check(Days, 1, beirut, "2022-03-26T21:59:00Z", "2022-03-25T22:00:00Z", "2022-03-26T22:00:00Z");
    }

    proptest! {
        #[test]
        fn windows_hold_their_row_and_lie_side_by_side(
            micros in -4_000_000_000_000_000i64..4_000_000_000_000_000,
            unit in prop_oneof![Just(CalendarUnit::Days), Just(CalendarUnit::Weeks { first: Weekday::Sun }), (1u32..=28).prop_map(|day| CalendarUnit::Months { day })],
            count in 1u32..5,
            zone in prop_oneof![Just(Tz::UTC), Just(chrono_tz::America::Sao_Paulo), Just(chrono_tz::Africa::Cairo), Just(chrono_tz::Pacific::Apia), Just(chrono_tz::America::Havana)],
        ) {
            let calendar = Calendar { unit, count, zone };
            let time = Instant::from_micros_saturating(micros);
            let window = calendar.assign(time);
            prop_assert!(window.start <= time && time < window.end, "{:?} {:?}", time, window);
            prop_assert_eq!(calendar.assign(window.start), window);
            prop_assert_eq!(calendar.assign(window.end).start, window.end);
        }
    }
}

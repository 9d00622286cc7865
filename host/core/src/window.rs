//! Window functions: which windows a row of a given event time belongs to.

use crate::calendar::Calendar;
use crate::time::{Duration, Instant};

/// A span of event time: `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First instant inside.
    pub start: Instant,
    /// First instant after it.
    pub end: Instant,
}

impl Window {
    /// All of time. Its end is a day before the last instant, as in Beam, so that it can fire.
    pub const GLOBAL: Window = Window { start: Instant::MIN, end: Instant::END_OF_GLOBAL_WINDOW };

    /// Whether two windows share an instant.
    pub fn overlaps(self, other: Window) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The smallest window that holds both.
    pub fn span(self, other: Window) -> Window {
        Window { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The last instant inside: the default event time of what a window gives out.
    pub fn max_timestamp(self) -> Instant {
        Instant::from_micros_saturating(self.end.micros() - 1)
    }
}

/// How rows are assigned to windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowFn {
    /// One window for everything.
    Global,
    /// Windows of equal length side by side, one of which starts at `offset`.
    Fixed {
        /// Length; more than 0.
        size: Duration,
        /// Shift of the grid; at least 0 and less than `size`.
        offset: Duration,
    },
    /// Windows of equal length, a new one every `period`. With a period beyond the size some rows are in none.
    Sliding {
        /// Length; more than 0.
        size: Duration,
        /// From one start to the next; more than 0.
        period: Duration,
        /// Shift of the grid of starts; at least 0 and less than `period`.
        offset: Duration,
    },
    /// A window a key and stretch of activity: rows less than `gap` apart share one.
    Sessions {
        /// The shortest silence that ends a session; more than 0.
        gap: Duration,
    },
    /// Days, weeks or months of a time zone's calendar; their length follows its clock changes.
    Calendar(Calendar),
}

impl WindowFn {
    /// Gives every window of a row, the latest first. Windows at both ends of time are cut to the range of instants. For
    /// sessions it is the row's own window, to be merged with those of its key that it overlaps.
    pub fn each(self, time: Instant, mut each: impl FnMut(Window)) {
        match self {
            WindowFn::Sliding { size, period, offset } => {
                let (size, period, offset) = (i128::from(size.micros()), i128::from(period.micros()), i128::from(offset.micros()));
                let time = i128::from(time.micros());
                let mut start = (time - offset).div_euclid(period) * period + offset;
                while start > time - size {
                    each(Window { start: clamp(start), end: clamp(start + size) });
                    start -= period;
                }
            }
            one => each(one.assign(time)),
        }
    }

    /// The window of a row, of sliding windows the latest that starts at or before it (which may have ended).
    pub fn assign(self, time: Instant) -> Window {
        match self {
            WindowFn::Global => Window::GLOBAL,
            WindowFn::Fixed { size, offset } => grid(time, size, size, offset),
            WindowFn::Sliding { size, period, offset } => grid(time, size, period, offset),
            WindowFn::Sessions { gap } => Window { start: time, end: time.saturating_add(gap) },
            WindowFn::Calendar(calendar) => calendar.assign(time),
        }
    }

    /// The window of a side input that a row of the window `main` looks into: the one that holds the last instant of `main`, of several
    /// the earliest (Beam's default mapping). Sessions of other rows and gaps between windows are none; callers refuse them.
    pub fn beside(self, main: Window) -> Window {
        let mut found = self.assign(main.max_timestamp());
        if let WindowFn::Sliding { .. } = self {
            self.each(main.max_timestamp(), |window| found = window);
        }
        found
    }

    /// Whether each row is in exactly one window that does not depend on other rows.
    pub fn is_single(self) -> bool {
        matches!(self, WindowFn::Global | WindowFn::Fixed { .. } | WindowFn::Calendar(_))
    }

    /// Whether windows of one key grow together.
    pub fn merges(self) -> bool {
        matches!(self, WindowFn::Sessions { .. })
    }
}

fn grid(time: Instant, size: Duration, period: Duration, offset: Duration) -> Window {
    let (size, period, offset) = (i128::from(size.micros()), i128::from(period.micros()), i128::from(offset.micros()));
    let start = (i128::from(time.micros()) - offset).div_euclid(period) * period + offset;
    Window { start: clamp(start), end: clamp(start + size) }
}

fn clamp(micros: i128) -> Instant {
    Instant::from_micros_saturating(micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(size: i64, offset: i64, time: i64, start: i64) {
        let window = WindowFn::Fixed { size: Duration::from_micros(size), offset: Duration::from_micros(offset) }
            .assign(Instant::from_micros_saturating(time));
        assert_eq!((window.start.micros(), window.end.micros()), (start, start + size), "{time} in {size}+{offset}");
    }

    #[test]
    fn fixed_windows_lie_on_the_grid() {
        check(10, 0, 0, 0);
        check(10, 0, 9, 0);
        check(10, 0, 10, 10);
        check(10, 0, -1, -10);
        check(10, 3, 2, -7);
        check(10, 3, 3, 3);
    }

    /// As `default_window_mapping_fn` of Beam 2.77 gives them.
    #[test]
    fn a_side_input_is_read_where_the_window_of_the_row_ends() {
        let micros = |micros: i64| Duration::from_micros(micros);
        let check = |side: WindowFn, main: (i64, i64), want: (i64, i64)| {
            let at = Instant::from_micros_saturating;
            let got = side.beside(Window { start: at(main.0), end: at(main.1) });
            assert_eq!((got.start.micros(), got.end.micros()), want, "{side:?} beside {main:?}");
        };
        let fixed = |size: i64| WindowFn::Fixed { size: micros(size), offset: Duration::ZERO };
        check(fixed(10), (0, 10), (0, 10));
        check(fixed(60), (10, 20), (0, 60));
        // A longer main window looks into the last of the shorter ones.
        check(fixed(10), (0, 60), (50, 60));
        check(fixed(10), (5, 15), (10, 20));
        // Of the sliding windows that hold 19 the one that began first.
        check(WindowFn::Sliding { size: micros(30), period: micros(10), offset: Duration::ZERO }, (10, 20), (-10, 20));
        assert_eq!(WindowFn::Global.beside(fixed(10).assign(Instant::MIN)), Window::GLOBAL);
        assert_eq!(WindowFn::Global.beside(Window::GLOBAL), Window::GLOBAL);
    }

    proptest! {
        /// Against every window of the grid near the row.
        #[test]
        fn sliding_windows_are_those_that_hold_the_row(size in 1i64..40, period in 1i64..40, offset in 0i64..40, time in -100i64..100) {
            let offset = offset % period;
            let function = WindowFn::Sliding {
                size: Duration::from_micros(size), period: Duration::from_micros(period), offset: Duration::from_micros(offset) };
            let mut got = Vec::new();
            function.each(Instant::from_micros_saturating(time), |window| got.push((window.start.micros(), window.end.micros())));
            let starts = (-400i64..400).map(|number| number * period + offset);
            let mut want: Vec<(i64, i64)> =
                starts.filter(|start| *start <= time && time < *start + size).map(|start| (start, start + size)).collect();
            want.reverse();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn a_fixed_window_holds_its_row(size in 1i64..1 << 40, offset in 0i64..1 << 40, time in -(1i64 << 60)..1 << 60) {
            let offset = offset % size;
            let window = WindowFn::Fixed { size: Duration::from_micros(size), offset: Duration::from_micros(offset) }
                .assign(Instant::from_micros_saturating(time));
            prop_assert!(window.start.micros() <= time && time < window.end.micros());
            prop_assert_eq!(window.end.micros() - window.start.micros(), size);
            prop_assert_eq!((window.start.micros() - offset).rem_euclid(size), 0);
        }
    }
}

//! Window functions: which windows a row of a given event time belongs to.

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
}

impl WindowFn {
    /// The window of a row. Windows at both ends of time are cut to the range of instants.
    pub fn assign(self, time: Instant) -> Window {
        match self {
            WindowFn::Global => Window::GLOBAL,
            WindowFn::Fixed { size, offset } => {
                let size_i = i128::from(size.micros());
                let shifted = i128::from(time.micros()) - i128::from(offset.micros());
                let start = shifted.div_euclid(size_i) * size_i + i128::from(offset.micros());
                Window { start: clamp(start), end: clamp(start + size_i) }
            }
        }
    }
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

    proptest! {
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

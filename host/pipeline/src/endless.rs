//! Groupings that would never give anything: one window for all of time, over rows that never end, without a trigger that fires
//! before the end.

use pelton_core::WindowFn;
use pelton_core::strategy::{Trigger, WindowingStrategy};

/// Whether a grouping under this strategy gives rows before the end of its input.
pub(crate) fn fires_before_the_end(strategy: &WindowingStrategy) -> bool {
    strategy.window_fn != WindowFn::Global || fires(&strategy.trigger)
}

/// Whether a trigger fires in a window whose end never comes.
fn fires(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Default | Trigger::Never => false,
        Trigger::Always | Trigger::AfterProcessingTime { .. } | Trigger::AfterCount(_) => true,
        Trigger::AfterWatermark { early, .. } => early.as_ref().is_some_and(|early| fires(early)),
        Trigger::Repeatedly(inner) => fires(inner),
        Trigger::AfterAny(all) => all.iter().any(fires),
        Trigger::AfterAll(all) => all.iter().all(fires),
        Trigger::AfterEach(all) => all.first().is_some_and(fires),
        Trigger::OrFinally(main, until) => fires(main) || fires(until),
    }
}

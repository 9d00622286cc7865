//! What can be said of a trigger without running it, for lint and for the grouping after a grouping.

use crate::strategy::{Trigger, WindowingStrategy};
use crate::time::Duration;
use crate::window::WindowFn;

impl Trigger {
    /// Whether it may finish before its window closes: rows that come after that are lost.
    pub fn may_lose_data(&self, allowed_lateness: Duration) -> bool {
        let takes_late_rows = allowed_lateness > Duration::ZERO;
        let may = |trigger: &Trigger| trigger.may_lose_data(allowed_lateness);
        match self {
            Trigger::Default | Trigger::Never | Trigger::Always | Trigger::Repeatedly(_) => false,
            Trigger::AfterCount(_) | Trigger::AfterProcessingTime { .. } => true,
            // What is late is repeated.
            Trigger::AfterWatermark { late, .. } => takes_late_rows && late.is_none(),
            Trigger::AfterAny(triggers) => triggers.iter().any(may),
            Trigger::AfterAll(triggers) | Trigger::AfterEach(triggers) => triggers.iter().all(may),
            // It is over when the second fires, finished or not.
            Trigger::OrFinally(main, until) => may(main) || until.fires_before_end() || (takes_late_rows && until.fires()),
        }
    }

    /// Whether windows of this function give out nothing before the input ends: the global window and a trigger that waits
    /// for its end.
    pub fn never_fires_unbounded(&self, window_fn: WindowFn) -> bool {
        window_fn == WindowFn::Global && !self.fires_before_end()
    }

    /// Whether it can fire while rows may still come on time.
    fn fires_before_end(&self) -> bool {
        match self {
            Trigger::Default | Trigger::Never => false,
            Trigger::Always | Trigger::AfterCount(_) | Trigger::AfterProcessingTime { .. } => true,
            Trigger::AfterWatermark { early, .. } => early.as_ref().is_some_and(|early| early.fires_before_end()),
            Trigger::Repeatedly(inner) => inner.fires_before_end(),
            Trigger::AfterEach(triggers) => triggers.first().is_some_and(Trigger::fires_before_end),
            Trigger::AfterAny(triggers) => triggers.iter().any(Trigger::fires_before_end),
            Trigger::AfterAll(triggers) => triggers.iter().all(Trigger::fires_before_end),
            Trigger::OrFinally(main, until) => main.fires_before_end() || until.fires_before_end(),
        }
    }

    /// Whether it can fire at all.
    fn fires(&self) -> bool {
        match self {
            Trigger::Never => false,
            Trigger::Repeatedly(inner) => inner.fires(),
            Trigger::AfterEach(triggers) => triggers.first().is_some_and(Trigger::fires),
            Trigger::AfterAny(triggers) => triggers.iter().any(Trigger::fires),
            Trigger::AfterAll(triggers) => triggers.iter().all(Trigger::fires),
            Trigger::OrFinally(main, until) => main.fires() || until.fires(),
            _ => true,
        }
    }

    /// Beam's continuation trigger: what a second grouping uses so that panes of the first go on when they come.
    fn after_grouping(&self) -> Trigger {
        let again = |trigger: &Option<Box<Trigger>>| trigger.as_ref().map(|inner| Box::new(inner.after_grouping()));
        let each = |triggers: &[Trigger]| triggers.iter().map(Trigger::after_grouping).collect();
        match self {
            Trigger::Default | Trigger::Never | Trigger::Always => self.clone(),
            // A pane of the first grouping holds the rows that were waited for.
            Trigger::AfterCount(_) => Trigger::AfterCount(1),
            // Beam's AfterSynchronizedProcessingTime, which the runners in Python fire at each element.
            Trigger::AfterProcessingTime { .. } => Trigger::Always,
            Trigger::AfterWatermark { early, late } => Trigger::AfterWatermark { early: again(early), late: again(late) },
            Trigger::Repeatedly(inner) => Trigger::Repeatedly(Box::new(inner.after_grouping())),
            Trigger::AfterAny(triggers) => Trigger::AfterAny(each(triggers)),
            Trigger::AfterAll(triggers) => Trigger::AfterAll(each(triggers)),
            Trigger::AfterEach(triggers) => Trigger::Repeatedly(Box::new(Trigger::AfterAny(each(triggers)))),
            Trigger::OrFinally(main, until) => {
                Trigger::Repeatedly(Box::new(Trigger::AfterAny(vec![main.after_grouping(), until.after_grouping()])))
            }
        }
    }
}

impl WindowingStrategy {
    /// The strategy of what a grouping gives out. The window function stays: rows keep the windows that they have, and the
    /// sessions of a key are not merged again, which is for the grouping to see from the rows' windows.
    pub fn after_grouping(&self) -> WindowingStrategy {
        WindowingStrategy { trigger: self.trigger.after_grouping(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(count: u32) -> Trigger {
        Trigger::AfterCount(count)
    }

    fn end(early: Option<Trigger>, late: Option<Trigger>) -> Trigger {
        Trigger::AfterWatermark { early: early.map(Box::new), late: late.map(Box::new) }
    }

    #[test]
    fn a_trigger_that_may_finish_may_lose_rows() {
        let forever = Trigger::Repeatedly(Box::new(count(2)));
        for (trigger, without, with_lateness) in [
            (Trigger::Default, false, false),
            (Trigger::Never, false, false),
            (count(2), true, true),
            (forever.clone(), false, false),
            (end(None, None), false, true),
            (end(None, Some(count(1))), false, false),
            (end(Some(count(1)), None), false, true),
            (Trigger::AfterAny(vec![forever.clone(), end(None, None)]), false, true),
            (Trigger::AfterAll(vec![forever.clone(), count(1)]), false, false),
            (Trigger::AfterEach(vec![count(1), forever.clone()]), false, false),
            (Trigger::AfterEach(vec![count(1), count(2)]), true, true),
            (Trigger::OrFinally(Box::new(forever.clone()), Box::new(Trigger::Default)), false, true),
            (Trigger::OrFinally(Box::new(Trigger::Default), Box::new(forever)), true, true),
        ] {
            assert_eq!(trigger.may_lose_data(Duration::ZERO), without, "{trigger:?}");
            assert_eq!(trigger.may_lose_data(Duration::from_micros(1)), with_lateness, "{trigger:?} with lateness");
        }
    }

    #[test]
    fn the_global_window_needs_a_trigger_that_does_not_wait_for_its_end() {
        let fixed = WindowFn::Fixed { size: Duration::from_micros(1), offset: Duration::ZERO };
        for (trigger, silent) in [
            (Trigger::Default, true),
            (Trigger::Never, true),
            (end(None, Some(count(1))), true),
            (end(Some(count(1)), None), false),
            (Trigger::Always, false),
            (Trigger::AfterAll(vec![count(1), Trigger::Default]), true),
            (Trigger::AfterAny(vec![count(1), Trigger::Default]), false),
        ] {
            assert_eq!(trigger.never_fires_unbounded(WindowFn::Global), silent, "{trigger:?}");
            assert!(!trigger.never_fires_unbounded(fixed));
        }
    }

    #[test]
    fn after_a_grouping_panes_are_passed_on_as_they_come() {
        let late = Trigger::AfterProcessingTime { delay: Duration::from_micros(5) };
        let strategy = WindowingStrategy { trigger: end(Some(count(7)), Some(late)), ..WindowingStrategy::global() };
        assert_eq!(strategy.after_grouping().trigger, end(Some(count(1)), Some(Trigger::Always)));
        let each = Trigger::AfterEach(vec![count(7), Trigger::Default]);
        assert_eq!(each.after_grouping(), Trigger::Repeatedly(Box::new(Trigger::AfterAny(vec![count(1), Trigger::Default]))));
    }
}

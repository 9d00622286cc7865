//! What holds of any trigger: a cell under random calls, and sessions in any order of arrival.

use super::*;
use crate::window::WindowFn;
use proptest::collection::vec;
use proptest::prelude::*;

const fn at(micros: i64) -> Instant {
    Instant::from_micros_saturating(micros)
}

fn triggers() -> impl Strategy<Value = Trigger> {
    let leaf = prop_oneof![
        Just(Trigger::Default),
        Just(Trigger::Never),
        Just(Trigger::Always),
        (1u32..4).prop_map(Trigger::AfterCount),
        (0i64..6).prop_map(|delay| Trigger::AfterProcessingTime { delay: Duration::from_micros(delay) }),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let parts = || vec(inner.clone(), 1..4);
        prop_oneof![
            (proptest::option::of(boxed()), proptest::option::of(boxed()))
                .prop_map(|(early, late)| Trigger::AfterWatermark { early, late }),
            boxed().prop_map(Trigger::Repeatedly),
            parts().prop_map(Trigger::AfterAny),
            parts().prop_map(Trigger::AfterAll),
            parts().prop_map(Trigger::AfterEach),
            (boxed(), boxed()).prop_map(|(main, until)| Trigger::OrFinally(main, until)),
        ]
    })
}

fn strategies() -> impl Strategy<Value = WindowingStrategy> {
    let combiners = [TimestampCombiner::EndOfWindow, TimestampCombiner::Earliest, TimestampCombiner::Latest];
    (triggers(), any::<[bool; 2]>(), 0usize..3, 0i64..10).prop_map(move |(trigger, [discarding, always], combiner, lateness)| {
        WindowingStrategy {
            trigger,
            accumulation: if discarding { Accumulation::Discarding } else { Accumulation::Accumulating },
            timestamp_combiner: combiners[combiner],
            closing: if always { Closing::Always } else { Closing::IfNonEmpty },
            ..WindowingStrategy::new(WindowFn::Global, Duration::from_micros(lateness))
        }
    })
}

/// What happens to a cell.
#[derive(Clone, Copy, Debug)]
enum Call {
    Row(i64),
    Watermark(i64),
    Clock(i64),
    /// The window grows, as a session does; its panes are numbered anew.
    Grow(i64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        4 => (0i64..20).prop_map(Call::Row),
        2 => (0i64..6).prop_map(Call::Watermark),
        2 => (0i64..4).prop_map(Call::Clock),
        1 => (1i64..5).prop_map(Call::Grow),
    ];
    vec(call, 0..40)
}

proptest! {
    /// Panes are numbered without gaps, early before on time before late, and nothing follows the last; timers lie ahead; a
    /// pane that is not late for us is not late downstream; the bytes of a state are the state.
    #[test]
    fn a_cell_under_any_trigger(strategy in strategies(), calls in calls()) {
        let rule = PaneRule::new(&strategy);
        let (mut state, mut watermark, mut now) = (PaneState::default(), at(-5), at(0));
        let mut window = Window { start: at(0), end: at(20) };
        let mut panes: Vec<PaneInfo> = Vec::new();
        // The output watermark, as far as this cell lets it go on.
        let mut output = watermark;
        // What the rule said last; it is told of the watermark when its timer is due, as it asks to be.
        let mut said = rule.on_elements(&mut state, window, &[], watermark, now);
        for call in calls {
            match call {
                Call::Watermark(by) => watermark = watermark.saturating_add(Duration::from_micros(by)),
                Call::Clock(by) => now = now.saturating_add(Duration::from_micros(by)),
                _ => {}
            }
            let is_due = said.event_timer.is_some_and(|timer| timer <= watermark);
            if watermark >= closes_at(window, strategy.allowed_lateness) {
                let due = match is_due {
                    true => rule.on_watermark(&mut state, window, watermark, now),
                    false => Step { fire: None, ..said },
                };
                panes.extend(due.fire.map(|firing| firing.pane));
                let last = rule.on_close(&mut state, window, watermark, now);
                prop_assert!(last.is_none_or(|firing| firing.pane.is_last && firing.clear));
                let given = due.fire.iter().chain(&last);
                prop_assert!(given.clone().all(|firing| firing.timestamp >= output || firing.pane.timing == PaneTiming::Late));
                panes.extend(last.map(|firing| firing.pane));
                break;
            }
            let step = match call {
                Call::Row(time) => rule.on_element(&mut state, window, at(time), watermark, now),
                Call::Watermark(_) if is_due => rule.on_watermark(&mut state, window, watermark, now),
                Call::Watermark(_) => Step { fire: None, ..said },
                Call::Clock(_) => rule.on_processing_time(&mut state, window, watermark, now),
                Call::Grow(by) => {
                    check_numbers(&std::mem::take(&mut panes))?;
                    let grown = Window { end: window.end.saturating_add(Duration::from_micros(by)), ..window };
                    let (merged, step) = rule.merge(&[(state.clone(), window)], grown, watermark, now);
                    (state, window) = (merged, grown);
                    step
                }
            };
            prop_assert_eq!(step.finished, state.is_finished());
            prop_assert!(step.event_timer.is_none_or(|timer| timer == window.end && timer > watermark));
            said = step.clone();
            prop_assert!(step.processing_timer.is_none_or(|timer| timer > now));
            prop_assert!(step.hold.is_none_or(|hold| hold <= window.max_timestamp()));
            if let Some(firing) = step.fire {
                prop_assert_eq!(firing.pane.timing == PaneTiming::Early, watermark < window.end);
                prop_assert_eq!(firing.pane.is_last, state.is_finished());
                prop_assert!(firing.timestamp >= output || firing.pane.timing == PaneTiming::Late, "{firing:?} is late for {output:?}");
                prop_assert!(firing.timestamp >= window.start && firing.timestamp <= window.max_timestamp());
                panes.push(firing.pane);
            }
            output = output.max(step.hold.map_or(watermark, |hold| hold.min(watermark)));
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            prop_assert_eq!(rule.decode(&bytes), Ok(state.clone()));
        }
        check_numbers(&panes)?;
    }

    /// Whatever the order in which rows come, sessions are the same, and so is what they give out at their end.
    #[test]
    fn sessions_do_not_depend_on_the_order_of_rows(
        mut strategy in strategies(),
        trigger in prop_oneof![Just(Trigger::Default), Just(Trigger::Never), Just(Trigger::AfterWatermark { early: None, late: None })],
        rows in vec((0i64..120, any::<u32>()), 1..20),
        gap in 1i64..15,
    ) {
        strategy.trigger = trigger;
        let times: Vec<i64> = rows.iter().map(|(time, _)| *time).collect();
        let mut shuffled = rows;
        shuffled.sort_by_key(|(_, order)| *order);
        let shuffled: Vec<i64> = shuffled.into_iter().map(|(time, _)| time).collect();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let want = brute_force(&strategy, &sorted, gap);
        for order in [&times, &shuffled, &sorted] {
            prop_assert_eq!(sessions(&strategy, order, gap), want.clone(), "{:?}", order);
        }
    }
}

/// The panes of one window.
fn check_numbers(panes: &[PaneInfo]) -> Result<(), TestCaseError> {
    let early = panes.iter().take_while(|pane| pane.timing == PaneTiming::Early).count();
    for (number, pane) in panes.iter().enumerate() {
        prop_assert_eq!((pane.index, pane.is_first), (number as i64, number == 0));
        prop_assert_eq!(pane.nonspeculative_index, if number < early { -1 } else { (number - early) as i64 });
        prop_assert!(pane.timing != PaneTiming::Early || number < early);
        prop_assert!(pane.timing != PaneTiming::OnTime || number == early);
        prop_assert!(!pane.is_last || number + 1 == panes.len());
    }
    Ok(())
}

/// A session as it came out: window, rows, event time, last.
type Session = (Window, usize, Instant, bool);

/// Rows less than `gap` apart, from their sorted times.
fn brute_force(strategy: &WindowingStrategy, sorted: &[i64], gap: i64) -> Vec<Session> {
    let runs = sorted.chunk_by(|one, next| next - one < gap);
    let session = |run: &[i64]| {
        let (first, last) = (run[0], run[run.len() - 1]);
        let window = Window { start: at(first), end: at(last + gap) };
        let time = match strategy.timestamp_combiner {
            TimestampCombiner::EndOfWindow => window.max_timestamp(),
            TimestampCombiner::Earliest => at(first),
            TimestampCombiner::Latest => at(last),
        };
        let waits_to_close = strategy.allowed_lateness > Duration::ZERO && strategy.trigger == Trigger::Default;
        (window, run.len(), time, !waits_to_close)
    };
    runs.map(session).collect()
}

/// The same by the rule, row by row.
fn sessions(strategy: &WindowingStrategy, times: &[i64], gap: i64) -> Vec<Session> {
    let rule = PaneRule::new(strategy);
    let (watermark, now) = (Instant::MIN, at(0));
    let mut cells: Vec<(PaneState, Window, usize)> = Vec::new();
    for time in times {
        let own = Window { start: at(*time), end: at(time + gap) };
        let (met, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(|(_, window, _)| window.overlaps(own));
        let into = met.iter().fold(own, |span, (_, window, _)| span.span(*window));
        let states: Vec<(PaneState, Window)> = met.iter().map(|(state, window, _)| (state.clone(), *window)).collect();
        let mut state = if states.is_empty() { PaneState::default() } else { rule.merge(&states, into, watermark, now).0 };
        assert!(rule.on_element(&mut state, into, at(*time), watermark, now).fire.is_none());
        cells = others;
        cells.push((state, into, 1 + met.iter().map(|(_, _, rows)| rows).sum::<usize>()));
    }
    cells.sort_by_key(|(_, window, _)| *window);
    let mut given = Vec::new();
    for (mut state, window, rows) in cells {
        let due = rule.on_watermark(&mut state, window, window.end, now).fire;
        let closed = due.or_else(|| rule.on_close(&mut state, window, closes_at(window, strategy.allowed_lateness), now));
        let firing = closed.expect("a session with rows gives a pane");
        given.push((window, rows, firing.timestamp, firing.pane.is_last));
    }
    given
}

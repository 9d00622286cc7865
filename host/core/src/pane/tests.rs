use super::*;
use crate::window::WindowFn;

const WINDOW: Window = Window { start: at(0), end: at(10) };

const fn at(micros: i64) -> Instant {
    Instant::from_micros_saturating(micros)
}

fn strategy(trigger: Trigger) -> WindowingStrategy {
    WindowingStrategy { trigger, allowed_lateness: Duration::from_micros(20), ..WindowingStrategy::new(WindowFn::Global, Duration::ZERO) }
}

/// One cell: what happens to it, and the panes as `timing index/nonspeculative@time`, `!` for the last and `+` where the cell
/// keeps its rows.
fn check(strategy: &WindowingStrategy, events: &[(&str, i64)], want: &str) {
    let rule = PaneRule::new(strategy);
    let (mut state, mut watermark, mut now) = (PaneState::default(), Instant::MIN, at(0));
    let mut got = Vec::new();
    let mut timers = (None, None);
    for (event, time) in events {
        let mut steps = Vec::new();
        match *event {
            "row" => steps.push(rule.on_element(&mut state, WINDOW, at(*time), watermark, now)),
            "now" => {
                now = at(*time);
                if timers.1.is_some_and(|timer| timer <= now) {
                    steps.push(rule.on_processing_time(&mut state, WINDOW, watermark, now));
                }
            }
            _ => {
                watermark = at(*time);
                if timers.0.is_some_and(|timer| timer <= watermark) {
                    steps.push(rule.on_watermark(&mut state, WINDOW, watermark, now));
                }
            }
        }
        for step in steps {
            timers = (step.event_timer, step.processing_timer);
            assert!(timers.1.is_none_or(|timer| timer > now), "a timer in the past");
            assert_eq!(step.finished, state.is_finished());
            got.extend(step.fire);
        }
        if watermark >= closes_at(WINDOW, strategy.allowed_lateness) {
            got.extend(rule.on_close(&mut state, WINDOW, watermark, now));
        }
        // What is in a checkpoint is what goes on.
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        state = rule.decode(&bytes).expect("a state that was just written");
    }
    let shown: Vec<String> = got.iter().map(shown).collect();
    assert_eq!(shown.join(" "), want, "{strategy:?} {events:?}");
}

fn shown(firing: &Firing) -> String {
    let PaneInfo { timing, is_first, is_last, index, nonspeculative_index } = firing.pane;
    assert_eq!(is_first, index == 0);
    let (last, kept) = (if is_last { "!" } else { "" }, if firing.clear { "" } else { "+" });
    format!("{timing:?} {index}/{nonspeculative_index}@{}{last}{kept}", firing.timestamp.micros())
}

fn end(early: Option<Trigger>, late: Option<Trigger>) -> Trigger {
    Trigger::AfterWatermark { early: early.map(Box::new), late: late.map(Box::new) }
}

fn forever(trigger: Trigger) -> Trigger {
    Trigger::Repeatedly(Box::new(trigger))
}

#[test]
fn the_default_gives_a_pane_on_time_and_one_for_each_late_row() {
    let default = strategy(Trigger::Default);
    let events = [("row", 1), ("row", 2), ("watermark", 9), ("watermark", 10), ("row", 3), ("row", 4), ("watermark", 30)];
    check(&default, &events, "OnTime 0/0@9 Late 1/1@9 Late 2/2@9");
    let without = WindowingStrategy { allowed_lateness: Duration::ZERO, ..default.clone() };
    check(&without, &events[..4], "OnTime 0/0@9!");
    // However far the watermark moves.
    check(&default, &[("row", 1), ("watermark", 1000)], "OnTime 0/0@9");
    let always = WindowingStrategy { closing: Closing::Always, ..default };
    check(&always, &[("row", 1), ("watermark", 1000)], "OnTime 0/0@9 Late 1/1@9!");
}

#[test]
fn early_and_late_firings() {
    let trigger = end(Some(Trigger::AfterCount(2)), Some(Trigger::AfterCount(2)));
    let events =
        [("row", 1), ("row", 2), ("row", 3), ("watermark", 10), ("row", 4), ("row", 5), ("row", 6), ("watermark", 29), ("watermark", 30)];
    check(&strategy(trigger.clone()), &events, "Early 0/-1@9 OnTime 1/0@9 Late 2/1@9 Late 3/2@9!");
    let accumulating = WindowingStrategy { accumulation: Accumulation::Accumulating, ..strategy(trigger) };
    check(&accumulating, &events, "Early 0/-1@9+ OnTime 1/0@9+ Late 2/1@9+ Late 3/2@9!");
    // The pane on time comes also when it is empty; then the trigger is finished.
    let events = [("row", 1), ("row", 2), ("watermark", 10), ("row", 3), ("watermark", 30)];
    check(&strategy(end(Some(Trigger::AfterCount(2)), None)), &events, "Early 0/-1@9 OnTime 1/0@9!");
}

#[test]
fn what_is_left_comes_when_the_window_closes() {
    let events = [("row", 1), ("row", 2), ("row", 3), ("watermark", 10), ("watermark", 30)];
    check(&strategy(Trigger::Never), &events, "OnTime 0/0@9!");
    check(&strategy(forever(Trigger::AfterCount(2))), &events, "Early 0/-1@9 OnTime 1/0@9!");
    check(&strategy(Trigger::AfterCount(2)), &events, "Early 0/-1@9!");
    // All of it late.
    check(&strategy(Trigger::Never), &[("watermark", 12), ("row", 1), ("watermark", 30)], "Late 0/0@9!");
}

#[test]
fn processing_time_counts_from_the_first_row_of_a_pane() {
    let delay = |micros| Trigger::AfterProcessingTime { delay: Duration::from_micros(micros) };
    let events =
        [("row", 1), ("now", 3), ("row", 2), ("now", 4), ("now", 5), ("now", 6), ("row", 3), ("now", 10), ("now", 11), ("now", 99)];
    check(&strategy(forever(delay(5))), &events, "Early 0/-1@9 Early 1/-1@9");
    check(&strategy(delay(5)), &events, "Early 0/-1@9!");
    // Any: the count begins anew with the time, and a time that has lost its pane fires no other.
    let any = forever(Trigger::AfterAny(vec![delay(5), Trigger::AfterCount(2)]));
    check(
        &strategy(any),
        &[("row", 1), ("now", 3), ("row", 2), ("now", 5), ("row", 3), ("now", 9), ("now", 10)],
        "Early 0/-1@9 Early 1/-1@9",
    );
    // All: both times.
    let all = Trigger::AfterAll(vec![delay(5), delay(7)]);
    check(&strategy(all), &[("row", 1), ("now", 5), ("now", 6), ("now", 7)], "Early 0/-1@9!");
}

#[test]
fn sequences_and_ends() {
    let each = Trigger::AfterEach(vec![Trigger::AfterCount(1), Trigger::AfterCount(2), end(None, None)]);
    check(&strategy(each), &[("row", 1), ("row", 2), ("row", 3), ("row", 4), ("watermark", 10)], "Early 0/-1@9 Early 1/-1@9 OnTime 2/0@9!");
    let until = Trigger::OrFinally(Box::new(forever(Trigger::AfterCount(2))), Box::new(forever(Trigger::AfterCount(3))));
    check(&strategy(until), &[("row", 1), ("row", 2), ("row", 3), ("row", 4)], "Early 0/-1@9 Early 1/-1@9!");
}

#[test]
fn timestamps_of_rows_that_were_not_late() {
    let with = |timestamp_combiner| WindowingStrategy { timestamp_combiner, ..strategy(Trigger::Default) };
    let events = [("watermark", 5), ("row", 3), ("row", 8), ("row", 7), ("watermark", 10), ("row", 6)];
    check(&with(TimestampCombiner::Earliest), &events, "OnTime 0/0@7 Late 1/1@9");
    check(&with(TimestampCombiner::Latest), &events, "OnTime 0/0@8 Late 1/1@9");
}

#[test]
fn a_merged_window_that_has_not_ended_begins_again() {
    let rule = PaneRule::new(&strategy(end(None, Some(Trigger::AfterCount(5)))));
    let mut state = PaneState::default();
    rule.on_element(&mut state, WINDOW, at(1), at(0), at(0));
    assert!(rule.on_watermark(&mut state, WINDOW, at(12), at(0)).fire.is_some());
    let longer = Window { start: at(0), end: at(15) };
    let (mut merged, step) = rule.merge(&[(state, WINDOW)], longer, at(12), at(0));
    assert_eq!((step.event_timer, step.finished), (Some(at(15)), false));
    rule.on_element(&mut merged, longer, at(5), at(12), at(0));
    let fired = rule.on_watermark(&mut merged, longer, at(15), at(0)).fire.expect("a pane");
    assert_eq!(shown(&fired), "OnTime 0/0@14");
}

//! Random strategies and streams, from a seed.
//!
//! Sizes are whole seconds and small, so that rows, watermarks, ends of windows and closings often fall together. Event time
//! begins far from 0, where processing time begins.

use pelton_core::strategy::{Accumulation, Closing, TimestampCombiner, Trigger, WindowingStrategy};
use pelton_core::time::Duration;
use pelton_core::{Instant, WindowFn};
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000;
/// A multiple of every size of windows.
const BEGIN: i64 = 1_200_000;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    Row {
        key: &'static str,
        value: i64,
        time: Instant,
    },
    Watermark(Instant),
    /// Processing time moves by so much.
    ProcessingTime(Duration),
}

#[derive(Clone, Debug)]
pub struct Stream {
    pub strategy: WindowingStrategy,
    pub events: Vec<Event>,
}

impl Stream {
    /// The stream of a seed.
    pub fn random(seed: u64) -> Stream {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let strategy = strategy(&mut chance);
        let events = events(&mut chance);
        Stream { strategy, events }
    }

    /// For `oracle.py`.
    pub fn to_json(&self) -> Value {
        let strategy = &self.strategy;
        let window = match strategy.window_fn {
            WindowFn::Global => json!(["global"]),
            WindowFn::Fixed { size, .. } => json!(["fixed", size.micros()]),
            WindowFn::Sliding { size, period, .. } => json!(["sliding", size.micros(), period.micros()]),
            WindowFn::Sessions { gap } => json!(["sessions", gap.micros()]),
            WindowFn::Calendar(_) => unreachable!("Beam's Python has no calendar windows"),
        };
        let events: Vec<Value> = self.events.iter().map(event_json).collect();
        let accumulation = if strategy.accumulation == Accumulation::Discarding { "DISCARDING" } else { "ACCUMULATING" };
        let timestamp_combiner = match strategy.timestamp_combiner {
            TimestampCombiner::EndOfWindow => "OUTPUT_AT_EOW",
            TimestampCombiner::Earliest => "OUTPUT_AT_EARLIEST",
            TimestampCombiner::Latest => "OUTPUT_AT_LATEST",
        };
        json!({
            "strategy": {
                "window": window,
                "trigger": trigger_json(&strategy.trigger),
                "accumulation": accumulation,
                "timestamp_combiner": timestamp_combiner,
                "allowed_lateness": strategy.allowed_lateness.micros(),
            },
            "events": events,
        })
    }
}

fn event_json(event: &Event) -> Value {
    match event {
        Event::Row { key, value, time } => json!(["row", key, value, time.micros()]),
        Event::Watermark(at) => json!(["watermark", at.micros()]),
        Event::ProcessingTime(by) => json!(["processing", by.micros()]),
    }
}

fn trigger_json(trigger: &Trigger) -> Value {
    let option = |trigger: &Option<Box<Trigger>>| trigger.as_ref().map_or(Value::Null, |inner| trigger_json(inner));
    let composite = |name: &str, parts: &[Trigger]| {
        let mut list = vec![json!(name)];
        list.extend(parts.iter().map(trigger_json));
        Value::Array(list)
    };
    match trigger {
        Trigger::Default => json!(["default"]),
        Trigger::Never => json!(["never"]),
        Trigger::Always => json!(["always"]),
        Trigger::AfterCount(count) => json!(["count", count]),
        Trigger::AfterProcessingTime { delay } => json!(["processing_time", delay.micros()]),
        Trigger::AfterWatermark { early, late } => json!(["end", option(early), option(late)]),
        Trigger::Repeatedly(inner) => json!(["repeatedly", trigger_json(inner)]),
        Trigger::AfterAny(parts) => composite("any", parts),
        Trigger::AfterAll(parts) => composite("all", parts),
        Trigger::AfterEach(parts) => composite("each", parts),
        Trigger::OrFinally(main, until) => json!(["or_finally", trigger_json(main), trigger_json(until)]),
    }
}

fn strategy(chance: &mut Chance) -> WindowingStrategy {
    let seconds = |seconds: u64| Duration::from_micros(seconds as i64 * SECOND);
    let window_fn = match chance.below(10) {
        0..4 => WindowFn::Fixed { size: seconds(10), offset: Duration::ZERO },
        4..6 => WindowFn::Sliding { size: seconds(10), period: seconds(5), offset: Duration::ZERO },
        6..9 => WindowFn::Sessions { gap: seconds(5) },
        _ => WindowFn::Global,
    };
    let allowed_lateness = seconds([0, 5, 20, 1000, 1000, 1000, 1000, 1000, 1000, 1000][chance.below(10) as usize]);
    let trigger = match chance.below(32) {
        0 => trigger(chance, 2, true),
        1..6 => trigger_of_processing_time(chance),
        _ => trigger(chance, 2, false),
    };
    WindowingStrategy {
        trigger,
        accumulation: if chance.below(2) == 0 { Accumulation::Discarding } else { Accumulation::Accumulating },
        timestamp_combiner: match chance.below(6) {
            0 => TimestampCombiner::Earliest,
            1 => TimestampCombiner::Latest,
            _ => TimestampCombiner::EndOfWindow,
        },
        closing: Closing::IfNonEmpty,
        ..WindowingStrategy::new(window_fn, allowed_lateness)
    }
}

fn trigger(chance: &mut Chance, depth: u64, has_processing_time: bool) -> Trigger {
    let boxed = |chance: &mut Chance| Box::new(trigger(chance, depth.saturating_sub(1), has_processing_time));
    let some = |chance: &mut Chance| (depth > 0 && chance.below(2) == 0).then(|| boxed(chance));
    let parts = |chance: &mut Chance| (0..2 + chance.below(2)).map(|_| *boxed(chance)).collect();
    if depth == 0 || chance.below(4) == 0 {
        return leaf(chance, has_processing_time);
    }
    match chance.below(10) {
        0..4 => Trigger::AfterWatermark { early: some(chance), late: some(chance) },
        4..6 => Trigger::Repeatedly(boxed(chance)),
        6 => Trigger::AfterAny(parts(chance)),
        7 => Trigger::AfterAll(parts(chance)),
        8 => Trigger::AfterEach(parts(chance)),
        _ => Trigger::OrFinally(boxed(chance), boxed(chance)),
    }
}

/// Processing time where Beam's Python has it right: alone, repeated, or as all that is early.
fn trigger_of_processing_time(chance: &mut Chance) -> Trigger {
    let delay = Trigger::AfterProcessingTime { delay: Duration::from_micros(chance.between(1, 4) * SECOND) };
    match chance.below(4) {
        0 => delay,
        1 => Trigger::Repeatedly(Box::new(delay)),
        _ => {
            let late = (chance.below(2) == 0).then(|| Box::new(Trigger::AfterCount(chance.between(1, 3) as u32)));
            Trigger::AfterWatermark { early: Some(Box::new(delay)), late }
        }
    }
}

fn leaf(chance: &mut Chance, has_processing_time: bool) -> Trigger {
    if has_processing_time && chance.below(2) == 0 {
        return Trigger::AfterProcessingTime { delay: Duration::from_micros(chance.between(1, 4) * SECOND) };
    }
    match chance.below(10) {
        0..2 => Trigger::Default,
        2 => Trigger::Always,
        3 => Trigger::Never,
        4..6 => Trigger::AfterWatermark { early: None, late: None },
        _ => Trigger::AfterCount(chance.between(1, 4) as u32),
    }
}

fn events(chance: &mut Chance) -> Vec<Event> {
    let keys = if chance.below(3) == 0 { 2 } else { 1 };
    let mut watermark = BEGIN - 5;
    let mut list = Vec::new();
    let count = 8 + chance.below(17) as i64;
    for value in 0..count {
        list.push(match chance.below(10) {
            0..6 => {
                let time = Instant::from_micros_saturating((watermark + chance.between(-14, 14)) * SECOND);
                Event::Row { key: ["a", "b"][chance.below(keys) as usize], value, time }
            }
            6..9 => {
                watermark += chance.between(1, 9);
                Event::Watermark(Instant::from_micros_saturating(watermark * SECOND))
            }
            _ => Event::ProcessingTime(Duration::from_micros(chance.between(1, 4) * SECOND)),
        });
    }
    // Beam's TestStream begins with elements or a watermark; a row makes sure that something happens.
    let first = Instant::from_micros_saturating(BEGIN * SECOND);
    list.insert(0, Event::Row { key: "a", value: count, time: first });
    // The runner waits without end for processing times that no event reaches.
    list.push(Event::ProcessingTime(Duration::from_micros(1_000 * SECOND)));
    list
}

/// Numbers from a seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }
}

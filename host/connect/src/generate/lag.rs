//! When events arrive: devices go offline, and what they held comes later, with its old event time.
//!
//! A device's time is cut into cycles of `offline_duration / offline_share`. In each it is offline once, for `offline_duration`, from a
//! moment that differs by device and cycle. What happens meanwhile arrives all at once when it is back, or with
//! `burst_on_return: false` each event `offline_duration` late.
//!
//! Invariant: which events arrive, and how often, does not depend on the number of parts; only their order does. What devices hold
//! at a moment follows from the seed, so that three numbers say where arrivals go on.

use super::model::Model;
use super::random::Random;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events that offline devices may hold together: sixteen bytes each.
pub const MAX_HELD: f64 = 4_000_000.0;

/// What is out of order with the devices and with their lines.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// Share of a device's time that it is offline.
    pub offline_share: f64,
    /// How long at a time.
    pub offline_micros: i64,
    /// What was held comes at once.
    pub burst: bool,
    /// Share of events that arrive twice.
    pub duplicates: f64,
    /// Share of lines that are cut off in the middle.
    pub malformed: f64,
}

impl Lag {
    /// No lag, no faults.
    #[cfg(test)]
    pub const NONE: Lag = Lag { offline_share: 0.0, offline_micros: 0, burst: true, duplicates: 0.0, malformed: 0.0 };

    /// When an event of a device arrives: its own time, if the device is online.
    pub fn arrival(&self, seed: u64, device: u64, time: i64) -> i64 {
        if self.offline_share <= 0.0 || self.offline_micros <= 0 {
            return time;
        }
        let cycle = ((self.offline_micros as f64 / self.offline_share) as i64).max(self.offline_micros);
        let number = time.div_euclid(cycle);
        let begun = number.saturating_mul(cycle);
        let free = (cycle - self.offline_micros) as u64;
        let offline = begun.saturating_add(Random::of(seed ^ device.rotate_left(32) ^ 0x006c_6167, number as u64).below(free + 1) as i64);
        let back = offline.saturating_add(self.offline_micros);
        match (offline..back).contains(&time) {
            true if self.burst => back,
            true => time.saturating_add(self.offline_micros),
            false => time,
        }
    }
}

/// One event as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Number of the event.
    pub index: u64,
    /// Its line is cut off.
    pub malformed: bool,
}

/// Where the arrivals of a part go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalPlace {
    /// The next event that no device has had yet.
    next: u64,
    /// The last of the held events that arrived: when, and its number. All that are held come after it.
    last_held: Option<(i64, u64)>,
    /// Has arrived once and comes again.
    again: Option<Arrival>,
}

/// The events of one part, in the order of their arrival.
pub struct Arrivals {
    seed: u64,
    lag: Lag,
    next: u64,
    step: u64,
    end: Option<u64>,
    held: BinaryHeap<Reverse<(i64, u64)>>,
    last_held: Option<(i64, u64)>,
    again: Option<Arrival>,
}

impl Arrivals {
    /// Part `part` of `parts`: every `parts`-th event, of `count` or without end.
    pub fn new(seed: u64, lag: Lag, part: u64, parts: u64, count: Option<u64>) -> Arrivals {
        Arrivals { seed, lag, next: part, step: parts, end: count, held: BinaryHeap::new(), last_held: None, again: None }
    }

    /// Where they go on.
    pub fn place(&self) -> ArrivalPlace {
        ArrivalPlace { next: self.next, last_held: self.last_held, again: self.again }
    }

    /// Goes on where arrivals of the same part were.
    pub fn go_to(&mut self, place: ArrivalPlace, model: &Model) {
        let first = self.next;
        (self.next, self.last_held, self.again) = (place.next, place.last_held, place.again);
        if self.lag.offline_share <= 0.0 {
            return;
        }
        // What is held was not yet due when the last event was taken, and no event is held for longer than its device is offline.
        let oldest = model.regular_time(self.next.saturating_sub(self.step)).saturating_sub(self.lag.offline_micros);
        let mut index = self.next;
        while index > first && model.regular_time(index - self.step) >= oldest {
            index -= self.step;
            let time = model.regular_time(index);
            let due = self.lag.arrival(self.seed, model.device(index), time);
            if due > time && self.last_held.is_none_or(|last| (due, index) > last) {
                self.held.push(Reverse((due, index)));
            }
        }
    }

    /// The next event; `None` when all have arrived.
    pub fn next(&mut self, model: &Model) -> Option<Arrival> {
        if let Some(arrival) = self.again.take() {
            return Some(arrival);
        }
        let index = self.next_index(model)?;
        let mut random = Random::of(!self.seed, index);
        let arrival = Arrival { index, malformed: random.happens(self.lag.malformed) };
        if random.happens(self.lag.duplicates) {
            self.again = Some(arrival);
        }
        Some(arrival)
    }

    fn next_index(&mut self, model: &Model) -> Option<u64> {
        loop {
            let ended = self.end.is_some_and(|end| self.next >= end);
            let time = model.regular_time(self.next);
            match self.held.peek() {
                Some(Reverse((due, _))) if ended || *due <= time => {
                    self.last_held = self.held.pop().map(|Reverse(held)| held);
                    return self.last_held.map(|(_, index)| index);
                }
                _ if ended => return None,
                _ => {}
            }
            let index = self.next;
            self.next = self.next.checked_add(self.step)?;
            if self.lag.offline_share <= 0.0 {
                return Some(index);
            }
            let due = self.lag.arrival(self.seed, model.device(index), time);
            if due <= time {
                return Some(index);
            }
            self.held.push(Reverse((due, index)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Kind, Model};
    use super::*;
    use pelton_core::Instant;

    const LAG: Lag = Lag { offline_share: 0.25, offline_micros: 50_000, burst: true, duplicates: 0.1, malformed: 0.05 };

    fn arrivals(lag: Lag, parts: u64) -> Vec<Vec<Arrival>> {
        (0..parts)
            .map(|number| {
                let model = Model::new(Kind::Iot, 3, Instant::from_micros_saturating(0), 1_000, 0, 20);
                let mut arrivals = Arrivals::new(3, lag, number, parts, Some(5_000));
                std::iter::from_fn(move || arrivals.next(&model)).collect()
            })
            .collect()
    }

    #[test]
    fn the_same_events_in_any_number_of_parts() {
        let sorted = |parts| {
            let mut all: Vec<(u64, bool)> =
                arrivals(LAG, parts).concat().iter().map(|arrival| (arrival.index, arrival.malformed)).collect();
            all.sort();
            all
        };
        let one = sorted(1);
        assert!(one.len() > 5_300 && one.len() < 5_700, "{}", one.len());
        assert_eq!(sorted(3), one);
        assert_eq!(sorted(8), one);
    }

    #[test]
    fn about_the_given_share_is_late_and_comes_in_bursts() {
        let lag = Lag { duplicates: 0.0, malformed: 0.0, ..LAG };
        let order: Vec<u64> = arrivals(lag, 1).concat().iter().map(|arrival| arrival.index).collect();
        let late = order
            .iter()
            .scan(0, |max, index| {
                *max = (*max).max(*index);
                Some(*index < *max)
            })
            .filter(|late| *late)
            .count();
        assert!((900..1_600).contains(&late), "{late}");
        assert_eq!(arrivals(Lag::NONE, 1).concat().iter().map(|arrival| arrival.index).collect::<Vec<_>>(), (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn arrivals_go_on_where_they_were() {
        for (burst, part) in [(true, 0), (false, 2)] {
            let lag = Lag { burst, ..LAG };
            let model = Model::new(Kind::Iot, 3, Instant::from_micros_saturating(0), 1_000, 0, 20);
            let begin = || Arrivals::new(3, lag, part, 3, Some(5_000));
            let mut arrivals = begin();
            let all: Vec<Arrival> = std::iter::from_fn(|| arrivals.next(&model)).collect();
            let mut arrivals = begin();
            for at in 0..=all.len() {
                let mut other = begin();
                other.go_to(arrivals.place(), &model);
                let most = if at % 100 == 0 { all.len() } else { 30 };
                let rest: Vec<Arrival> = std::iter::from_fn(|| other.next(&model)).take(most).collect();
                assert_eq!(rest, all[at..(at + most).min(all.len())], "{at}");
                arrivals.next(&model);
            }
        }
    }
}

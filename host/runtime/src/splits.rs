//! Makes watermarks from rows that still know the split they were read from: in a source task at the source itself and
//! at every transform after it that sets event times.

use crate::message::{Message, SplitEvent};
use crate::operator::Out;
use pelton_core::watermark::{Policy, SplitWatermark, Watermark, merge};
use pelton_core::{Batch, Instant, Positions, Split};
use std::sync::Arc;

/// The watermarks of the splits that feed a task.
pub struct Splits {
    policy: Policy,
    splits: Vec<(Arc<Split>, SplitWatermark)>,
    unclaimed: bool,
    seen: bool,
    given: Option<Watermark>,
    largest: Instant,
}

impl Splits {
    /// No splits yet.
    pub fn new(policy: Policy) -> Splits {
        Splits { policy, splits: Vec::new(), unclaimed: false, seen: false, given: None, largest: Instant::MIN }
    }

    /// Whether this task is fed by splits at all; behind an exchange it is not.
    pub fn any(&self) -> bool {
        self.seen
    }

    /// Takes note of a change.
    pub fn event(&mut self, event: &SplitEvent, now: Instant) {
        self.seen = true;
        match event {
            SplitEvent::Opened(split) => {
                self.at(split, now);
            }
            SplitEvent::Ended(split) => self.splits.retain(|(known, _)| !Arc::ptr_eq(known, split)),
            SplitEvent::Unclaimed(unclaimed) => self.unclaimed = *unclaimed,
        }
    }

    /// Takes note of the event times of a batch. Behind an exchange rows still know their split, for messages, but nobody
    /// there is told when it ends: it makes no watermark.
    pub fn observe(&mut self, batch: &Batch, marker: Option<Instant>, now: Instant) {
        if !self.seen {
            return;
        }
        if let Positions::At { split, .. } = &batch.positions
            && batch.num_rows() > 0
        {
            let split = split.clone();
            self.at(&split, now).observe(&batch.times, marker, now);
        }
    }

    /// No split is idle: the task waits for somebody.
    pub fn keep_awake(&mut self, now: Instant) {
        self.splits.iter_mut().for_each(|(_, split)| split.keep_awake(now));
    }

    /// How far the fastest split is ahead of the slowest, microseconds.
    pub fn drift(&self, now: Instant) -> Option<i64> {
        let known = self.splits.iter().filter_map(|(_, split)| match split.current(now) {
            Some(Watermark::Active(at)) if at > Instant::MIN => Some(at.micros()),
            _ => None,
        });
        let (least, most) = known.fold((i64::MAX, i64::MIN), |(least, most), at| (least.min(at), most.max(at)));
        (least <= most).then(|| most - least)
    }

    /// The merged watermark, if it changed. It never goes back.
    pub fn watermark(&mut self, now: Instant) -> Option<Watermark> {
        if self.unclaimed {
            return None;
        }
        let merged = merge(self.splits.iter().map(|(_, split)| split.current(now)))?;
        let merged = match merged {
            Watermark::Active(at) => {
                self.largest = self.largest.max(at);
                Watermark::Active(self.largest)
            }
            Watermark::Idle => Watermark::Idle,
        };
        (self.given != Some(merged)).then(|| {
            self.given = Some(merged);
            merged
        })
    }

    /// What an operator that makes watermarks does with one from above: splits make their own. The end of all input is told by
    /// the largest watermark, which always passes.
    pub fn pass(&self, watermark: Watermark, out: &mut Out) {
        if !self.any() || watermark == Watermark::Active(Instant::MAX) {
            out.control(Message::Watermark(watermark));
        }
    }

    /// Takes note of a change and tells those below, the watermark first.
    pub fn tell(&mut self, event: SplitEvent, out: &mut Out) -> Option<Watermark> {
        self.event(&event, out.now);
        let told = self.advance(out);
        out.control(Message::Split(event));
        told
    }

    /// Gives out the watermark if it changed, and how far the splits are apart.
    pub fn advance(&mut self, out: &mut Out) -> Option<Watermark> {
        out.drift = self.drift(out.now);
        let watermark = self.any().then(|| self.watermark(out.now)).flatten()?;
        out.control(Message::Watermark(watermark));
        Some(watermark)
    }

    fn at(&mut self, split: &Arc<Split>, now: Instant) -> &mut SplitWatermark {
        let number = match self.splits.iter().position(|(known, _)| Arc::ptr_eq(known, split)) {
            Some(number) => number,
            None => {
                self.splits.push((split.clone(), SplitWatermark::new(self.policy, now)));
                self.splits.len() - 1
            }
        };
        &mut self.splits[number].1
    }
}

//! Makes watermarks from rows that still know the split they were read from: in a source task at the source itself and
//! at every transform after it that sets event times.
//!
//! A split keeps what its watermark was made from over a restart, whichever task it comes to: all tasks are handed those of all splits, and take
//! one when its split opens.

use crate::alignment::Come;
use crate::failure::Failure;
use crate::message::{Message, SplitEvent};
use crate::operator::Out;
use crate::unkeyed;
use pelton_core::watermark::{Policy, SplitWatermark, Watermark, merge};
use pelton_core::{Batch, Instant, Positions, Split};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The watermarks of the splits that feed a task.
pub struct Splits {
    policy: Policy,
    splits: Vec<(Arc<Split>, SplitWatermark)>,
    unclaimed: bool,
    seen: bool,
    given: Option<Watermark>,
    largest: Instant,
    /// By split, those of a restart whose splits have not opened here.
    restored: BTreeMap<String, SplitWatermark>,
}

impl Splits {
    /// No splits yet.
    pub fn new(policy: Policy) -> Splits {
        Splits { policy, splits: Vec::new(), unclaimed: false, seen: false, given: None, largest: Instant::MIN, restored: BTreeMap::new() }
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
            SplitEvent::Ended(split) => {
                self.splits.retain(|(known, _)| !Arc::ptr_eq(known, split));
                self.restored.remove(&split.id());
            }
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

    /// What a restart needs ([`crate::operator::Operator::unkeyed`]).
    pub fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        let encoded = |split: &SplitWatermark| {
            let mut bytes = Vec::new();
            split.encode(&mut bytes);
            bytes
        };
        let open = self.splits.iter().map(|(split, watermark)| (split.id(), encoded(watermark)));
        let closed = self.restored.iter().map(|(split, watermark)| (split.clone(), encoded(watermark)));
        open.chain(closed).chain([unkeyed::of_watermark(self.largest)]).collect()
    }

    /// Begins with what former tasks had.
    pub fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.largest = unkeyed::earliest_watermark(unkeyed)?;
        for (split, bytes) in unkeyed.iter().filter(|(split, _)| split != unkeyed::TASK) {
            let read = SplitWatermark::decode(self.policy, bytes, Instant::MIN);
            let read = read.ok_or_else(|| unkeyed::damaged(&format!("the watermark of {split}")))?;
            // Who has not opened a split may still have what it was at an earlier restart.
            let latest = match self.restored.remove(split) {
                Some(other) => other.later(read),
                None => read,
            };
            self.restored.insert(split.clone(), latest);
        }
        Ok(())
    }

    /// These splits are not idle: they wait for slower ones.
    pub fn keep_awake(&mut self, waiting: &[Arc<Split>], now: Instant) {
        let waits = |split: &Arc<Split>| waiting.iter().any(|waiting| Arc::ptr_eq(waiting, split));
        self.splits.iter_mut().filter(|(split, _)| waits(split)).for_each(|(_, watermark)| watermark.keep_awake(now));
    }

    /// How far each split has come that is not idle and has had rows.
    pub fn come(&self, now: Instant) -> Vec<Come> {
        self.active(now).map(|(split, at)| (split.clone(), at)).collect()
    }

    /// How far the fastest split is ahead of the slowest, microseconds.
    pub fn drift(&self, now: Instant) -> Option<i64> {
        let known = self.active(now).map(|(_, at)| at.micros());
        let (least, most) = known.fold((i64::MAX, i64::MIN), |(least, most), at| (least.min(at), most.max(at)));
        (least <= most).then(|| most - least)
    }

    fn active(&self, now: Instant) -> impl Iterator<Item = (&Arc<Split>, Instant)> {
        self.splits.iter().filter_map(move |(split, watermark)| match watermark.current(now) {
            Some(Watermark::Active(at)) if at > Instant::MIN => Some((split, at)),
            _ => None,
        })
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
    pub fn tell(&mut self, event: SplitEvent, out: &mut Out) {
        self.event(&event, out.now);
        self.advance(out);
        out.control(Message::Split(event));
    }

    /// Gives out the watermark if it changed, and how far the splits are apart.
    pub fn advance(&mut self, out: &mut Out) {
        out.drift = self.drift(out.now);
        if let Some(watermark) = self.any().then(|| self.watermark(out.now)).flatten() {
            out.control(Message::Watermark(watermark));
        }
    }

    fn at(&mut self, split: &Arc<Split>, now: Instant) -> &mut SplitWatermark {
        let number = match self.splits.iter().position(|(known, _)| Arc::ptr_eq(known, split)) {
            Some(number) => number,
            None => {
                let restored = if self.restored.is_empty() { None } else { self.restored.remove(&split.id()) };
                let mut watermark = restored.unwrap_or_else(|| SplitWatermark::new(self.policy, now));
                watermark.keep_awake(now);
                self.splits.push((split.clone(), watermark));
                self.splits.len() - 1
            }
        };
        &mut self.splits[number].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{RecordBatch, RecordBatchOptions};
    use arrow::datatypes::Schema;
    use pelton_core::Duration;
    use proptest::prelude::*;

    const SPLITS: usize = 4;

    fn split(partition: usize) -> Arc<Split> {
        Arc::new(Split::Kafka { topic: "t".into(), partition: partition as i32 })
    }

    fn rows(split: &Arc<Split>, times: &[i64]) -> Batch {
        let options = RecordBatchOptions::new().with_row_count(Some(times.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).expect("no columns");
        let positions = Positions::At { split: split.clone(), offsets: vec![0; times.len()].into() };
        Batch::new(rows, times.to_vec().into(), positions)
    }

    fn policy() -> Policy {
        Policy::fixed_delay(Duration::from_micros(5), None)
    }

    /// Tasks that are fed by all splits in turn.
    fn tasks(number: usize, unkeyed: &[(String, Vec<u8>)], splits: &[Arc<Split>]) -> Vec<Splits> {
        let mut tasks: Vec<Splits> = (0..number).map(|_| Splits::new(policy())).collect();
        tasks.iter_mut().for_each(|task| task.restore(unkeyed).expect("what was given is taken"));
        for (number, split) in splits.iter().enumerate() {
            let task = number % tasks.len();
            tasks[task].event(&SplitEvent::Opened(split.clone()), Instant::MIN);
        }
        tasks
    }

    proptest! {
        /// Whoever reads a split after a restart, event time goes on from where it was: as if one task had read them all.
        #[test]
        fn restarts_change_no_watermark(steps in proptest::collection::vec((0..SPLITS, 0i64..100, proptest::option::weighted(0.2, 1usize..=SPLITS)), 0..40)) {
            let mut splits: Vec<Arc<Split>> = (0..SPLITS).map(split).collect();
            let [mut judge] = tasks(1, &[], &splits).try_into().ok().expect("one task");
            let mut run = tasks(2, &[], &splits);
            let judged = splits.clone();
            for (number, time, restart) in steps {
                if let Some(number) = restart {
                    let unkeyed: Vec<(String, Vec<u8>)> = run.iter().flat_map(Splits::unkeyed).collect();
                    // Another run has splits of its own that are the same.
                    splits = (0..SPLITS).map(split).collect();
                    run = tasks(number, &unkeyed, &splits);
                }
                judge.observe(&rows(&judged[number], &[time]), None, Instant::MIN);
                let task = number % run.len();
                run[task].observe(&rows(&splits[number], &[time]), None, Instant::MIN);
                judge.watermark(Instant::MIN);
                run.iter_mut().for_each(|task| {
                    task.watermark(Instant::MIN);
                });
                let told = run.iter().map(|task| task.given.expect("a task tells its watermark at once"));
                prop_assert_eq!(merge(told.map(Some)), judge.given);
            }
        }
    }

    /// A split that nobody has opened yet when the next restart comes.
    #[test]
    fn a_split_that_is_opened_late_is_not_forgotten() {
        let [mut first] = tasks(1, &[], &[split(0), split(1)]).try_into().ok().expect("one task");
        let opened: Vec<Arc<Split>> = first.splits.iter().map(|(split, _)| split.clone()).collect();
        first.observe(&rows(&opened[0], &[50]), None, Instant::MIN);
        first.observe(&rows(&opened[1], &[80]), None, Instant::MIN);
        // Both tasks carry split 1; then one of them opens it and goes on, and the other still has what it was.
        let second = tasks(2, &first.unkeyed(), &[split(0)]);
        let carried: Vec<(String, Vec<u8>)> = second.iter().flat_map(Splits::unkeyed).collect();
        let late = split(1);
        let mut third = tasks(2, &carried, std::slice::from_ref(&late));
        third[0].observe(&rows(&late, &[90]), None, Instant::MIN);
        let carried: Vec<(String, Vec<u8>)> = third.iter().rev().flat_map(Splits::unkeyed).collect();
        let [mut last] = tasks(1, &carried, &[split(1)]).try_into().ok().expect("one task");
        assert_eq!(last.watermark(Instant::MIN), Some(Watermark::Active(Instant::from_micros_saturating(85))));
        assert!(last.restore(&[("kafka:0:t".into(), vec![9])]).unwrap_err().to_string().contains("kafka:0:t"));
    }
}

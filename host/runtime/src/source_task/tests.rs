//! Two splits of one reader, one of them fast: who is held back, and that all rows come.

use super::*;
use crate::alignment::Alignment;
use crate::operators::set_watermark::SetWatermark;
use crate::task::{Route, Slot};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use pelton_connect::ConnectError;
use pelton_core::Duration;
use pelton_core::watermark::{Merged, Rule};
use std::cell::RefCell;
use std::rc::Rc;

const BATCHES: [i64; 2] = [60, 600];
/// From one batch of a split to the next.
const STEPS: [i64; 2] = [100, 10];
const MAX_DRIFT: i64 = 250;

/// Reads the fast split first, as long as it may; but each split has to begin.
struct Greedy {
    splits: [Arc<Split>; 2],
    read: [i64; 2],
    paused: [bool; 2],
    can_pause: bool,
}

#[async_trait]
impl Reader for Greedy {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        if self.read == BATCHES {
            return Ok(None);
        }
        let open = |number: &usize| self.read[*number] < BATCHES[*number] && !self.paused[*number];
        let turn = if self.read[1] == 0 { Some(1) } else { [0, 1].into_iter().find(open) };
        let Some(turn) = turn else { return std::future::pending().await };
        let time = self.read[turn] * STEPS[turn];
        self.read[turn] += 1;
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(1)));
        let batch = SourceBatch::new(rows.expect("a row without columns"), self.splits[turn].clone(), vec![self.read[turn]].into());
        let split_ended = self.read[turn] == BATCHES[turn];
        Ok(Some(SourceBatch { times: Some(vec![time].into()), split_ended, ..batch }))
    }

    fn assigned(&self) -> Vec<Arc<Split>> {
        self.splits.to_vec()
    }

    fn pause(&mut self, splits: &[Arc<Split>]) -> bool {
        if self.can_pause {
            self.paused = self.splits.each_ref().map(|own| splits.iter().any(|split| Arc::ptr_eq(split, own)));
        }
        self.can_pause
    }

    fn unclaimed(&self) -> bool {
        false
    }
}

/// Notes event times by split, in the order in which rows come.
struct Notes(Rc<RefCell<Vec<(u32, i64)>>>);

#[async_trait(?Send)]
impl Operator for Notes {
    async fn data(&mut self, _input: usize, batch: Batch, _out: &mut Out) -> Result<(), Failure> {
        let Positions::At { split, .. } = &batch.positions else { panic!("rows know their split") };
        let Split::Generated { part, .. } = &**split else { panic!("the splits of this test") };
        self.0.borrow_mut().extend(batch.times.iter().map(|time| (*part, *time)));
        Ok(())
    }
}

/// The rows of a run with alignment.
fn run(can_pause: bool) -> Vec<(u32, i64)> {
    let notes = Rc::default();
    let gate = Alignment::default().join("all", Duration::from_micros(MAX_DRIFT));
    let policy = Policy { rule: Rule::FixedDelay(Duration::ZERO), idle_timeout: None };
    let refusals = Refusals { transform: "Read".into(), plugin: None, port: None };
    let set =
        SetWatermark { marker: None, ingestion: false, splits: Splits::new(policy), gate: Some(gate.clone()), refusals: refusals.clone() };
    let operators: [Box<dyn Operator>; 3] = [Box::new(Head), Box::new(set), Box::new(Notes(Rc::clone(&notes)))];
    let slots = operators.into_iter().enumerate().map(|(number, operator)| {
        let inputs = usize::from(number > 0);
        Slot {
            node: number,
            task: 0,
            barriers: 0,
            evicts: false,
            counts: crate::counts::Counts::new(1),
            operator,
            budget: None,
            metrics: Arc::new(crate::metrics::NodeMetrics::new(number.to_string(), String::new(), vec![String::new()])),
            routes: vec![if number < 2 { vec![Route::Local { slot: number + 1, input: 0 }] } else { vec![] }],
            inputs: (0..inputs).map(|input| (input, input)).collect(),
            merged: Merged::new(inputs),
            open: inputs,
            end: End::Drained,
        }
    });
    let splits = [0, 1].map(|part| Arc::new(Split::Generated { name: "Read".into(), part }));
    let (_cancel, cancelled) = tokio::sync::watch::channel(false);
    let (_barriers, barriers) = tokio::sync::watch::channel(Default::default());
    let (_decided, decided) = tokio::sync::watch::channel(Epoch::default());
    let (_stop, stop) = tokio::sync::watch::channel(StopMode::Run);
    let operators = Operators { slots: slots.collect(), exchanges: vec![], seals: None, cancelled, crashed: Arc::default() };
    let task = SourceTask {
        reader: Box::new(Greedy { splits, read: [0, 0], paused: [false; 2], can_pause }),
        policy: Policy { rule: Rule::AtEnd, idle_timeout: None },
        bounded: true,
        samples: false,
        scatter: Arc::default(),
        refusals,
        stop,
        gates: vec![gate],
        barriers,
        decided,
        counter: None,
        watermarks: vec![],
        paused: Paused::default(),
        room: None,
    };
    let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("an executor");
    executor.block_on(run_source(operators, task)).expect("the run ends");
    notes.take()
}

#[test]
fn only_the_split_that_is_ahead_waits() {
    let rows = run(true);
    assert_eq!(rows.len() as i64, BATCHES.iter().sum::<i64>());
    let (mut slow, mut furthest) = (0, 0);
    for (split, time) in rows {
        match split {
            1 => slow = time,
            // The slow split ends a little earlier; then nobody is waited for.
            _ if slow < (BATCHES[1] - 1) * STEPS[1] => furthest = furthest.max(time - slow),
            _ => {}
        }
    }
    assert!((MAX_DRIFT..=MAX_DRIFT + STEPS[0]).contains(&furthest), "the fast split was {furthest} ahead");
}

#[test]
fn a_reader_that_cannot_pause_reads_on_while_it_has_the_slowest() {
    let rows = run(false);
    assert_eq!(rows.len() as i64, BATCHES.iter().sum::<i64>());
    assert!(rows[1..].iter().take(BATCHES[0] as usize).all(|(split, _)| *split == 0), "in its own order");
}

//! Joins by key and event time, besides windows: rows of two inputs side by side where keys are equal and times near each other.
//!
//! In reading order:
//! - [`rows`]: how rows are kept in a cell.
//! - [`pairs`]: what comes out.
//! - [`interval`]: IntervalJoin, all pairs within a span of time.
//! - [`as_of`]: AsOfJoin, the newest right row that is not newer than the left one.
//!
//! Time. With an input watermark W and an allowed lateness L, a row of event time t is late if t + L < W. So every row that is
//! still to come has a time of at least W - L, the *horizon*, and what needs rows before it is settled.
//!
//! Invariants: no row comes out with an event time before the output watermark, which is the horizon or, where a kept row
//! waits for a partner, its event time. State is bounded by the span of time (`tolerance`) and the lateness. What comes out
//! does not depend on how rows are cut into batches. Windows of the inputs play no part: what comes out is windowed by its event time.

mod as_of;
mod interval;
mod pairs;
pub(super) mod rows;
#[cfg(test)]
pub(crate) mod tests;

use self::as_of::AsOf;
use self::interval::Interval;
use self::pairs::Pairs;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::operator::{Operator, Out, Port, Refusals};
use crate::operators::flatten::align;
use crate::operators::join::JoinSide;
use crate::unkeyed;
use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant};
use pelton_pipeline::graph::TimedRule;
use pelton_state::Cells;
use std::sync::Arc;

/// Batches between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;
/// The column that the output `late` has after those of the inputs.
pub const LATE_COLUMN: &str = "watermark";

/// What a join by time does; the same for all its tasks.
#[derive(Clone)]
pub struct TimedJoinPlan {
    /// The inputs, in the order of the file.
    pub sides: [JoinSide; 2],
    /// Which of them is `left`.
    pub left: usize,
    /// Which rows belong together.
    pub rule: TimedRule,
    /// Where each column of the output comes from: an input, and a number among its columns.
    pub output: Vec<(usize, usize)>,
    /// Columns of the output.
    pub schema: SchemaRef,
    /// Columns of the output `late`; `None`: nobody reads it.
    pub late_schema: Option<SchemaRef>,
    /// Its port.
    pub late_port: Port,
    /// How far behind the watermark a row may be.
    pub allowed_lateness: Duration,
    /// Bytes of state that this task may hold.
    pub state_limit: usize,
}

/// How far event time has come for a join.
#[derive(Clone, Copy, Debug)]
struct Clock {
    watermark: Instant,
    allowed: Duration,
}

impl Clock {
    /// The watermark at which everything before and at `time` has come.
    fn settles(self, time: Instant) -> Instant {
        time.saturating_add(self.allowed).saturating_add(Duration::from_micros(1))
    }

    /// Whether everything before and at `time` has come; a row of that time is late then.
    fn is_settled(self, time: Instant) -> bool {
        self.settles(time) <= self.watermark
    }

    /// The earliest time that a row which is not late can have.
    fn horizon(self) -> Instant {
        if self.watermark == Instant::MAX { Instant::MAX } else { self.watermark.saturating_sub(self.allowed) }
    }
}

/// A batch of one input: what is looked up and what is kept of it.
struct Incoming<'a> {
    /// Which input.
    side: usize,
    /// The rows that are neither late nor without a key.
    rows: Vec<u32>,
    times: &'a [i64],
    /// The columns that come out, of all rows of the batch.
    columns: &'a [ArrayRef],
    /// By row of the batch.
    keys: &'a Keys,
    /// By row of the batch: the columns that come out, as bytes.
    bytes: &'a Keys,
}

/// One of the two rules, with its state.
trait Rule {
    /// Takes rows.
    fn rows(&mut self, pairs: &Pairs, clock: Clock, incoming: &Incoming<'_>, out: &mut Out) -> Result<(), String>;
    /// Does what is due at the watermark.
    fn advance(&mut self, pairs: &Pairs, clock: Clock, out: &mut Out) -> Result<(), String>;
    /// The earliest event time that a row which waits will come out with.
    fn hold(&self) -> Option<Instant>;
    /// Rows that have neither led to anything nor been filtered.
    fn held(&self) -> u64;
    /// Its state, each part by a name that stays.
    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells));
    /// About how much memory it takes.
    fn bytes(&self) -> usize;
}

/// The operator.
pub struct TimedJoin {
    plan: TimedJoinPlan,
    /// Which side each input of the task feeds.
    inputs: Vec<usize>,
    keys: [KeyEncoder; 2],
    bytes: [KeyEncoder; 2],
    pairs: Pairs,
    rule: Box<dyn Rule>,
    clock: Clock,
    /// The last output watermark.
    given: Instant,
    /// Whether the last word was that nothing comes.
    idle: bool,
    batches: u32,
    refusals: Refusals,
}

impl TimedJoin {
    /// With no state. `inputs[i]` is the side that input i of the task feeds.
    pub fn new(plan: TimedJoinPlan, inputs: Vec<usize>, refusals: Refusals) -> Result<TimedJoin, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let [a, b] = &plan.sides;
        let keys = [KeyEncoder::new(&a.key_types).map_err(failed)?, KeyEncoder::new(&b.key_types).map_err(failed)?];
        let bytes = [KeyEncoder::for_rows(&a.types).map_err(failed)?, KeyEncoder::for_rows(&b.types).map_err(failed)?];
        let decoders = [KeyDecoder::new(&a.types).map_err(failed)?, KeyDecoder::new(&b.types).map_err(failed)?];
        let types = [a.types.clone(), b.types.clone()];
        let pairs = Pairs { output: plan.output.clone(), schema: plan.schema.clone(), decoders, types };
        let rule: Box<dyn Rule> = match plan.rule {
            TimedRule::Interval { before, after } => Box::new(Interval::new(&plan, before, after)),
            TimedRule::AsOf { tolerance } => Box::new(AsOf::new(&plan, tolerance)),
        };
        let clock = Clock { watermark: Instant::MIN, allowed: plan.allowed_lateness };
        Ok(TimedJoin { plan, inputs, keys, bytes, pairs, rule, clock, given: Instant::MIN, idle: false, batches: 0, refusals })
    }

    fn internal(&self, message: String) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message }
    }

    fn late(&self, batch: &Batch, rows: Vec<u32>, out: &mut Out) {
        out.account.late += rows.len() as u64;
        let Some(schema) = self.plan.late_schema.as_ref().filter(|_| !rows.is_empty()) else { return };
        let late = batch.take(&UInt32Array::from(rows));
        let inputs: Vec<usize> = (0..schema.fields().len() - 1).collect();
        let inputs = Arc::new(schema.project(&inputs).expect("the first columns are the inputs'"));
        let mut columns = align(&late.rows, &inputs).columns().to_vec();
        let watermarks = vec![self.clock.watermark.micros(); late.num_rows()];
        columns.push(Arc::new(TimestampMicrosecondArray::from(watermarks).with_timezone("UTC")));
        let made = RecordBatch::try_new(schema.clone(), columns).expect("columns follow the late schema");
        out.rows(self.plan.late_port, late.with_columns(made));
    }

    fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.rule.advance(&self.pairs, self.clock, out).map_err(|message| self.internal(message))
    }

    fn output_watermark(&mut self, woke: bool, out: &mut Out) {
        let horizon = self.clock.horizon();
        let watermark = self.rule.hold().map_or(horizon, |hold| hold.min(horizon));
        if watermark > self.given || woke {
            self.given = self.given.max(watermark);
            out.control(Message::Watermark(Watermark::Active(self.given)));
        }
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.batches = self.batches.wrapping_add(1);
        if !self.batches.is_multiple_of(MEASURE_EVERY) {
            return Ok(());
        }
        let (held, limit) = (self.rule.bytes(), self.plan.state_limit);
        if held > limit {
            let mib = |bytes: usize| bytes / (1 << 20);
            return Err(Failure::State { transform: self.refusals.transform.clone(), held: mib(held), limit: mib(limit) });
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Operator for TimedJoin {
    async fn data(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let number = self.inputs[input];
        let side = &self.plan.sides[number];
        let key_columns = group_columns(&self.refusals.transform, &side.keys, &batch)?;
        let nulls: Vec<_> = key_columns.iter().filter_map(|key| key.logical_nulls()).collect();
        let column = |name: &String| batch.rows.column_by_name(name).expect("the column was there when the plan was bound").clone();
        let columns: Vec<ArrayRef> = side.columns.iter().map(column).collect();
        let (mut rows, mut late, mut lonely) = (Vec::with_capacity(batch.num_rows()), Vec::new(), Vec::new());
        for (row, time) in batch.times.iter().enumerate() {
            // Null equals nothing, so that such a row need not wait for a partner.
            let list = match self.clock.is_settled(Instant::from_micros_saturating(*time)) {
                true => &mut late,
                false if nulls.iter().any(|nulls| nulls.is_null(row)) => &mut lonely,
                false => &mut rows,
            };
            list.push(row as u32);
        }
        match side.kept {
            true => out.account.led += lonely.len() as u64,
            false => out.account.filtered += std::mem::take(&mut lonely).len() as u64,
        }
        let given = self.pairs.alone(number, &columns, &batch.times, lonely, out);
        given.map_err(|message| self.internal(message))?;
        let (mut keys, mut bytes) = (Keys::default(), Keys::default());
        encode(&self.keys[number], &key_columns, batch.num_rows(), &mut keys);
        encode(&self.bytes[number], &columns, batch.num_rows(), &mut bytes);
        let incoming = Incoming { side: number, rows, times: &batch.times, columns: &columns, keys: &keys, bytes: &bytes };
        let taken = self.rule.rows(&self.pairs, self.clock, &incoming, out);
        taken.map_err(|message| self.internal(message))?;
        self.late(&batch, late, out);
        self.output_watermark(false, out);
        self.measure()
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        match watermark {
            Watermark::Active(at) => {
                self.clock.watermark = self.clock.watermark.max(at);
                self.advance(out)?;
                let woke = std::mem::replace(&mut self.idle, false);
                self.output_watermark(woke, out);
            }
            Watermark::Idle => {
                self.idle = true;
                out.control(Message::Watermark(watermark));
            }
        }
        Ok(())
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        if end == End::Drained {
            self.clock.watermark = Instant::MAX;
            self.advance(out)?;
        }
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.output_watermark(false, out);
        Ok(())
    }

    fn held(&self) -> u64 {
        self.rule.held()
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        self.rule.visit_cells(visit);
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        vec![unkeyed::of_watermark(self.clock.watermark)]
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.clock.watermark = unkeyed::earliest_watermark(unkeyed)?;
        Ok(())
    }
}

//! SetWatermark: makes the watermark of each split of the source in this task from the rows that pass. Rows pass unchanged,
//! except that ingestion time stamps them with the time of their arrival here.

use crate::alignment::Gate;
use crate::failure::Failure;
use crate::message::{End, SplitEvent};
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::splits::Splits;
use arrow::array::{Array, AsArray};
use async_trait::async_trait;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant};
use pelton_expr::Expression;

/// The operator.
pub struct SetWatermark {
    /// Rows for which it is true say how far event time has come.
    pub marker: Option<Expression>,
    /// Whether rows get the time of their arrival as event time.
    pub ingestion: bool,
    /// Watermarks by split.
    pub splits: Splits,
    /// The group of sources that move together.
    pub gate: Option<Gate>,
    /// What becomes of rows whose marker cannot be computed.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for SetWatermark {
    async fn data(&mut self, _input: usize, mut batch: Batch, out: &mut Out) -> Result<(), Failure> {
        if self.ingestion {
            batch.times = vec![out.now.micros(); batch.num_rows()].into();
            batch.windows = None;
        }
        let marker = match &self.marker {
            None => None,
            Some(marker) => {
                let evaluated = marker.evaluate(&batch.rows);
                self.refusals.refuse(&batch, &evaluated.errors, out)?;
                let marks = evaluated.array.as_boolean();
                let marked = (0..marks.len()).filter(|row| marks.is_valid(*row) && marks.value(*row)).map(|row| batch.times[row]).max();
                marked.map(Instant::from_micros_saturating)
            }
        };
        out.account.led += batch.num_rows() as u64;
        self.splits.observe(&batch, marker, out.now);
        out.rows(MAIN, batch);
        self.advance(out);
        Ok(())
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        self.splits.pass(watermark, out);
        Ok(())
    }

    async fn split(&mut self, event: SplitEvent, out: &mut Out) -> Result<(), Failure> {
        self.splits.tell(event, out);
        self.publish(out.now);
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        if let Some(gate) = &self.gate {
            self.splits.keep_awake(&gate.ahead().splits, out.now);
        }
        self.advance(out);
        Ok(())
    }

    async fn end(&mut self, _end: End, _out: &mut Out) -> Result<(), Failure> {
        self.leave();
        Ok(())
    }

    async fn abort(&mut self) {
        self.leave();
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        self.splits.unkeyed()
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.splits.restore(unkeyed)
    }
}

impl SetWatermark {
    fn advance(&mut self, out: &mut Out) {
        self.splits.advance(out);
        self.publish(out.now);
    }

    /// Tells the group how far each split has come.
    fn publish(&self, now: Instant) {
        if let Some(gate) = &self.gate {
            gate.publish(self.splits.come(now));
        }
    }

    fn leave(&self) {
        if let Some(gate) = &self.gate {
            gate.publish(Vec::new());
        }
    }
}

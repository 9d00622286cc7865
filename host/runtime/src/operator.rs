//! What every operator can do, and how it gives messages out.

use crate::failure::Failure;
use crate::message::{End, Message, SplitEvent};
use crate::metrics::Account;
use async_trait::async_trait;
use pelton_core::fault::{Origin, error_batch};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, RowError};

/// Number of an output; 0 is the main one.
pub type Port = usize;

/// The main output.
pub const MAIN: Port = 0;

/// One transform in one task.
#[async_trait(?Send)]
pub trait Operator {
    /// Rows from logical input `input`.
    async fn data(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure>;

    /// Partial results of rows that were aggregated on their way to this grouping. Gives how many rows they are of.
    async fn partial(&mut self, _input: usize, _batch: Batch, _out: &mut Out) -> Result<u64, Failure> {
        Err(Failure::Internal { transform: "exchange".into(), message: "only a grouping takes partial results".into() })
    }

    /// Event time has come to here over all inputs.
    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        out.control(Message::Watermark(watermark));
        Ok(())
    }

    /// A split of the source in this task changed.
    async fn split(&mut self, event: SplitEvent, out: &mut Out) -> Result<(), Failure> {
        out.control(Message::Split(event));
        Ok(())
    }

    /// Time passes.
    async fn tick(&mut self, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    /// All inputs have ended. The task forwards the end afterwards.
    async fn end(&mut self, _end: End, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    /// The pipeline failed: leave nothing half-done outside.
    async fn abort(&mut self) {}

    /// Of a grouping: keys that have many of the rows, in words, and how many.
    fn heaviest(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Rows that came in and are still inside.
    fn held(&self) -> u64 {
        0
    }
}

/// Collects what an operator gives out during one call.
pub struct Out {
    /// In order; `None` = to every port.
    pub messages: Vec<(Option<Port>, Message)>,
    /// How the rows fared.
    pub account: Account,
    /// Processing time of this call.
    pub now: Instant,
    /// How far the splits whose watermarks are made here are apart, microseconds.
    pub drift: Option<i64>,
}

impl Out {
    /// Empty.
    pub fn new(now: Instant) -> Out {
        Out { messages: Vec::new(), account: Account::default(), now, drift: None }
    }

    /// Rows for one output; an empty batch is dropped.
    pub fn rows(&mut self, port: Port, batch: Batch) {
        if batch.num_rows() > 0 {
            self.messages.push((Some(port), Message::Data(batch)));
        }
    }

    /// A message for every output.
    pub fn control(&mut self, message: Message) {
        self.messages.push((None, message));
    }
}

/// What becomes of the rows that a transform refuses.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// Full name of the transform.
    pub transform: String,
    /// Digest of its plugin, if it is one.
    pub plugin: Option<String>,
    /// The error output; `None` = the pipeline fails.
    pub port: Option<Port>,
}

impl Refusals {
    /// Sends refused rows of `batch` to the error output, or fails with the first.
    pub fn refuse(&self, batch: &Batch, errors: &[RowError], out: &mut Out) -> Result<(), Failure> {
        let Some(first) = errors.first() else { return Ok(()) };
        let Some(port) = self.port else {
            let row = first.row as usize;
            let position = batch.position(row).map(|(split, offset)| crate::position::describe(split, offset));
            let plugin = self.plugin.as_ref().map(|digest| format!("\n  plugin:   {digest}")).unwrap_or_default();
            return Err(Failure::Row {
                transform: self.transform.clone(),
                message: first.message.clone(),
                position: position.unwrap_or_else(|| "computed row, no position".into()),
                element: crate::position::element(batch, row),
                plugin,
                stack: if first.stack.is_empty() { String::new() } else { format!("\n  stack:    {}", first.stack) },
            });
        };
        out.account.errors += errors.len() as u64;
        let origin = Origin { transform: &self.transform, plugin: self.plugin.as_deref() };
        out.rows(port, error_batch(batch, errors, origin, &mut pelton_connect::line_of));
        Ok(())
    }
}

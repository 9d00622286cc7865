//! What every operator can do, and how it gives messages out.

use crate::failure::Failure;
use crate::message::{End, Message, SplitEvent};
use crate::metrics::{Account, UserMetrics};
use crate::operators::stateful::Stateful;
use crate::swap::NewVersion;
use async_trait::async_trait;
use pelton_connect::Staged;
use pelton_core::evolution::Book;
use pelton_core::fault::{Origin, error_batch};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Epoch, Instant, RowError};
use pelton_state::{Cells, Scratch};
use std::sync::Arc;

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

    /// Event time is about to come to `until`, or all inputs to end: fires a portion of what is due by then, to be passed on before the next one is
    /// asked for. False: there is none (left), and the message may come. So what comes of very many cells is not in memory all at once.
    async fn portion(&mut self, _until: Instant, _out: &mut Out) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Event time has come to here over one channel of the task; for operators that keep their inputs apart. [`Operator::watermark`] follows
    /// where it moves that over all of them.
    async fn input_watermark(&mut self, _input: usize, _watermark: Watermark, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    /// One channel has ended; likewise.
    async fn input_end(&mut self, _input: usize, _end: End, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether a channel brings rows to look at rather than to work on: those are not counted.
    fn is_side(&self, _input: usize) -> bool {
        false
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

    /// A barrier: what came before belongs to the epoch. A sink makes it durable and says what of it has to be made visible. With
    /// `last`, nothing follows.
    async fn barrier(&mut self, _epoch: Epoch, _last: bool) -> Result<Option<Staged>, Failure> {
        Ok(None)
    }

    /// The keyed state of this operator, each part by a name that stays. A visitor, because some states are behind a lock.
    fn visit_cells(&mut self, _visit: &mut dyn FnMut(&'static str, &mut Cells)) {}

    /// From here on cells may lie on disk. Operators that do not override it keep them in memory.
    fn evict_to(&mut self, _scratch: &Scratch) -> Result<(), Failure> {
        Ok(())
    }

    /// After each message: lets cells leave memory that do not fit, and fails with what the disk has failed with. What the message gave out is
    /// passed on only after it.
    fn make_room(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// What its keyed state is made of, if a plugin has to say.
    fn book(&self) -> Option<Arc<Book>> {
        None
    }

    /// Whether there is work that can wait for a pause.
    fn is_settling(&self) -> bool {
        false
    }

    /// A bounded part of that work.
    async fn settle(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// At a cut: what comes from now on is this version's. State that it keeps goes on. Operators that keep none need not do this.
    async fn renew(&mut self, _version: &NewVersion) -> Result<Renewed, Failure> {
        Ok(Renewed::Replace)
    }

    /// It as a plugin's transform with state, if it is one.
    fn stateful(&mut self) -> Option<&mut Stateful> {
        None
    }

    /// What else a restart needs: small, written whole at each barrier, by partition: a split ([`pelton_core::Split::id`]), or `""` for what
    /// a task has.
    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// What the user's plugin has counted in this task since it began.
    fn counted(&self) -> Option<&UserMetrics> {
        None
    }

    /// After the cells were filled: takes the unkeyed state of all former tasks of this operator, of which there may have been more or fewer than
    /// there are now, and makes indexes anew.
    fn restore(&mut self, _unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        Ok(())
    }
}

/// What became of an operator at a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It is of the new version.
    Itself,
    /// It keeps nothing: an operator of the new version takes its place.
    Replace,
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

//! The version that runs and a candidate side by side, in one task ([`super::experiment`]).
//!
//! Without state a row goes to one of them. With state the running version works on all rows, so that its state is whole whatever becomes of the candidate; of a cell
//! that was *handed* to the candidate only the candidate's output counts. A cell is handed with its first row on the candidate's side: all of it as
//! it is then is copied, timers too. So neither the end of the candidate nor its promotion loses an update: at its end its cells go, at its promotion they take the places of
//! the others.
//!
//! A life that ends takes the candidate with it: the next one goes on with the version that runs.

use super::NewVersion;
use super::experiment::{Experiment, Kind};
use crate::clock::Stopwatch;
use crate::exchange::encode;
use crate::failure::Failure;
use crate::message::{End, Message, SplitEvent};
use crate::metrics::{Account, UserMetrics};
use crate::operator::{Operator, Out, Renewed};
use crate::operators::stateful::{Output, Stateful};
use arrow::array::{ArrayRef, UInt32Array};
use async_trait::async_trait;
use pelton_connect::Staged;
use pelton_core::evolution::Book;
use pelton_core::key::{KeyEncoder, Keys, key_hash};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Epoch, Instant};
use pelton_state::{Cells, Scratch};
use std::sync::Arc;

/// See the module.
pub struct Beside {
    current: Box<dyn Operator>,
    candidate: Option<Candidate>,
}

struct Candidate {
    operator: Box<dyn Operator>,
    keeps_state: bool,
    experiment: Arc<Experiment>,
    keys: Keys,
    /// The watermarks that both have given out last.
    given: [Option<Watermark>; 2],
}

impl Beside {
    /// A candidate beside an operator.
    pub fn new(mut current: Box<dyn Operator>, mut operator: Box<dyn Operator>, experiment: Arc<Experiment>) -> Beside {
        let mut given = [None; 2];
        if let (Some(stateful), Some(theirs)) = (current.stateful(), operator.stateful()) {
            given = [theirs.follow(stateful); 2];
        }
        let keeps_state = operator.stateful().is_some();
        let candidate = Candidate { operator, keeps_state, experiment, keys: Keys::default(), given };
        Beside { current, candidate: Some(candidate) }
    }

    /// Drops the candidate if it is over.
    fn settle_experiment(&mut self) {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.experiment.is_over()) {
            self.candidate = None;
            if let Some(stateful) = self.current.stateful() {
                stateful.take_all_back();
            }
        }
    }

    /// Rows on either side: of the version that runs, and of the candidate.
    fn divide(&mut self, batch: &Batch) -> Result<(Vec<u32>, Vec<u32>), Failure> {
        let Some(candidate) = &mut self.candidate else { return Ok(((0..batch.num_rows() as u32).collect(), Vec::new())) };
        let hashes = match self.current.stateful() {
            Some(stateful) if candidate.experiment.by.is_empty() => stateful.key_hashes(batch)?,
            _ => candidate.hashes(batch)?,
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (row, hash) in hashes.iter().enumerate() {
            if candidate.experiment.takes(*hash) { theirs.push(row as u32) } else { ours.push(row as u32) }
        }
        Ok((ours, theirs))
    }

    async fn shadowed(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let Some(candidate) = &mut self.candidate else { return Ok(()) };
        if let Some(stateful) = self.current.stateful() {
            stateful.hand(&batch, candidate.operator.stateful(), Output::Counts)?;
        }
        let own = self.work(input, batch.clone(), out.now).await?;
        let Some(candidate) = &mut self.candidate else { return Ok(()) };
        if let Some(theirs) = candidate.try_data(input, batch, out.now).await {
            candidate.experiment.compare(&own, &theirs);
        }
        self.pass(own, None, out);
        Ok(())
    }

    /// Rows of the candidate's side.
    async fn theirs(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let Some(candidate) = &mut self.candidate else { return self.current.data(input, batch, out).await };
        let Some(stateful) = self.current.stateful() else {
            return match candidate.try_data(input, batch.clone(), out.now).await {
                Some(theirs) => {
                    give(out, theirs);
                    Ok(())
                }
                // Nobody has worked on them yet.
                None => self.current.data(input, batch, out).await,
            };
        };
        stateful.hand(&batch, candidate.operator.stateful(), Output::IsDropped)?;
        let mut own = Out::new(out.now);
        stateful.data(input, batch.clone(), &mut own).await?;
        let theirs = candidate.try_data(input, batch, out.now).await;
        if let Some(theirs) = &theirs {
            candidate.experiment.compare(&own, theirs);
            own.messages.retain(|(_, message)| !matches!(message, Message::Data(_)));
            own.account = theirs.account;
        }
        self.pass(own, theirs, out);
        Ok(())
    }

    /// What the running version makes of rows.
    async fn work(&mut self, input: usize, batch: Batch, now: Instant) -> Result<Out, Failure> {
        let (rows, watch, mut own) = (batch.num_rows() as u64, Stopwatch::start(), Out::new(now));
        self.current.data(input, batch, &mut own).await?;
        if let Some(candidate) = &self.candidate {
            candidate.experiment.fared(false, rows, &own, watch.elapsed());
        }
        Ok(own)
    }

    /// Passes on what both have given: all of the running version's, and the candidate's rows. Of a canary with state, event time has come to where it has on both
    /// sides.
    fn pass(&mut self, own: Out, theirs: Option<Out>, out: &mut Out) {
        let canary = self.candidate.as_mut().filter(|candidate| candidate.experiment.kind == Kind::Canary && candidate.keeps_state);
        let Some(candidate) = canary else { return give(out, own) };
        out.account = add(out.account, own.account);
        let given = candidate.given;
        candidate.told(0, &own);
        theirs.iter().for_each(|theirs| candidate.told(1, theirs));
        let is_watermark = |message: &Message| matches!(message, Message::Watermark(_));
        out.messages.extend(own.messages.into_iter().filter(|(_, message)| !is_watermark(message)));
        let rows = theirs.into_iter().flat_map(|theirs| theirs.messages).filter(|(_, message)| matches!(message, Message::Data(_)));
        out.messages.extend(rows);
        if let Some(both) = candidate.both().filter(|_| candidate.given != given) {
            out.control(Message::Watermark(both));
        }
    }

    /// Control messages that both are told.
    async fn both(&mut self, out: &mut Out, tell: impl AsyncFn(&mut dyn Operator, &mut Out) -> Result<(), Failure>) -> Result<(), Failure> {
        self.settle_experiment();
        let mut own = Out::new(out.now);
        tell(&mut *self.current, &mut own).await?;
        let mut theirs = None;
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.keeps_state) {
            let mut told = Out::new(out.now);
            match tell(&mut *candidate.operator, &mut told).await {
                Ok(()) => theirs = Some(told),
                Err(failure) => candidate.experiment.end(Some(failure.to_string())),
            }
        }
        self.pass(own, theirs, out);
        Ok(())
    }
}

impl Candidate {
    fn hashes(&mut self, batch: &Batch) -> Result<Vec<u64>, Failure> {
        let by = &self.experiment.by;
        if by.is_empty() {
            let hash = |row: usize| match batch.position(row) {
                Some((split, offset)) => key_hash(format!("{} {offset}", split.id()).as_bytes()),
                None => 0,
            };
            return Ok((0..batch.num_rows()).map(hash).collect());
        }
        let failed = |message: String| Failure::Internal { transform: "canary".into(), message };
        let columns: Vec<ArrayRef> = by.iter().filter_map(|name| batch.rows.column_by_name(name).cloned()).collect();
        let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
        encode(&KeyEncoder::new(&types).map_err(failed)?, &columns, batch.num_rows(), &mut self.keys);
        Ok((0..batch.num_rows()).map(|row| key_hash(self.keys.get(row))).collect())
    }

    /// What the candidate makes of rows; `None`: it fails, and that is its end.
    async fn try_data(&mut self, input: usize, batch: Batch, now: Instant) -> Option<Out> {
        let mut out = Out::new(now);
        let (rows, watch) = (batch.num_rows() as u64, Stopwatch::start());
        match self.operator.data(input, batch, &mut out).await {
            Ok(()) => {
                self.experiment.fared(true, rows, &out, watch.elapsed());
                Some(out)
            }
            Err(failure) => {
                self.experiment.end(Some(failure.to_string()));
                None
            }
        }
    }

    fn told(&mut self, side: usize, out: &Out) {
        for (_, message) in &out.messages {
            if let Message::Watermark(watermark) = message {
                self.given[side] = Some(*watermark);
            }
        }
    }

    /// How far event time has come on both sides.
    fn both(&self) -> Option<Watermark> {
        match self.given {
            [Some(Watermark::Active(own)), Some(Watermark::Active(theirs))] => Some(Watermark::Active(own.min(theirs))),
            [Some(Watermark::Idle), Some(other)] | [Some(other), Some(Watermark::Idle)] => Some(other),
            [own, theirs] => own.or(theirs),
        }
    }
}

/// Gives out what an operator has given.
fn give(out: &mut Out, own: Out) {
    out.account = add(out.account, own.account);
    out.messages.extend(own.messages);
}

fn add(a: Account, b: Account) -> Account {
    Account {
        led: a.led + b.led,
        filtered: a.filtered + b.filtered,
        errors: a.errors + b.errors,
        late: a.late + b.late,
        copies: a.copies + b.copies,
    }
}

#[async_trait(?Send)]
impl Operator for Beside {
    async fn data(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        self.settle_experiment();
        let Some(candidate) = &self.candidate else { return self.current.data(input, batch, out).await };
        if candidate.experiment.kind == Kind::Shadow {
            return self.shadowed(input, batch, out).await;
        }
        let (ours, theirs) = self.divide(&batch)?;
        if !ours.is_empty() {
            let part = if theirs.is_empty() { batch.clone() } else { batch.take(&UInt32Array::from(ours)) };
            let own = self.work(input, part, out.now).await?;
            self.pass(own, None, out);
        }
        match theirs.len() {
            0 => Ok(()),
            all if all == batch.num_rows() => self.theirs(input, batch, out).await,
            _ => self.theirs(input, batch.take(&UInt32Array::from(theirs)), out).await,
        }
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        self.both(out, async |operator, out| operator.watermark(watermark, out).await).await
    }

    async fn portion(&mut self, until: Instant, out: &mut Out) -> Result<bool, Failure> {
        self.current.portion(until, out).await
    }

    async fn input_watermark(&mut self, input: usize, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        self.current.input_watermark(input, watermark, out).await
    }

    async fn input_end(&mut self, input: usize, end: End, out: &mut Out) -> Result<(), Failure> {
        self.current.input_end(input, end, out).await
    }

    fn is_side(&self, input: usize) -> bool {
        self.current.is_side(input)
    }

    async fn split(&mut self, event: SplitEvent, out: &mut Out) -> Result<(), Failure> {
        self.current.split(event, out).await
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.both(out, async |operator, out| operator.tick(out).await).await
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        self.both(out, async |operator, out| operator.end(end, out).await).await
    }

    async fn abort(&mut self) {
        self.current.abort().await;
    }

    fn heaviest(&self) -> Vec<(String, u64)> {
        self.current.heaviest()
    }

    fn held(&self) -> u64 {
        self.current.held()
    }

    async fn barrier(&mut self, epoch: Epoch, last: bool) -> Result<Option<Staged>, Failure> {
        self.current.barrier(epoch, last).await
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        self.current.visit_cells(visit);
    }

    fn evict_to(&mut self, scratch: &Scratch) -> Result<(), Failure> {
        self.current.evict_to(scratch)
    }

    fn make_room(&mut self) -> Result<(), Failure> {
        self.current.make_room()
    }

    fn book(&self) -> Option<Arc<Book>> {
        self.current.book()
    }

    fn is_settling(&self) -> bool {
        self.current.is_settling()
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        self.current.settle().await
    }

    /// A swap ends the experiment. Where the candidate is what comes, its cells take their places.
    async fn renew(&mut self, version: &NewVersion) -> Result<Renewed, Failure> {
        let candidate = self.candidate.take();
        if self.current.renew(version).await? == Renewed::Replace {
            self.current = version.operator()?;
        }
        let Some(stateful) = self.current.stateful() else { return Ok(Renewed::Itself) };
        let promoted = candidate.filter(|candidate| {
            version.experiment.as_ref().is_some_and(|experiment| Arc::ptr_eq(experiment, &candidate.experiment))
                && !candidate.experiment.is_over()
        });
        if let Some(mut candidate) = promoted
            && let Some(theirs) = candidate.operator.stateful()
        {
            stateful.adopt(theirs)?;
        }
        stateful.take_all_back();
        Ok(Renewed::Itself)
    }

    fn counted(&self) -> Option<&UserMetrics> {
        self.current.counted()
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        self.current.unkeyed()
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.current.restore(unkeyed)
    }

    fn stateful(&mut self) -> Option<&mut Stateful> {
        self.current.stateful()
    }
}

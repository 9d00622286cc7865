//! An edge between tasks: splits batches among the tasks of the next stage and repeats control messages to all of them.
//! Rows for a grouping may be aggregated here first ([`crate::lift`]).

use crate::channel::Sender;
use crate::failure::Failure;
use crate::lift::{Due, Lift};
use crate::message::{Barrier, Message};
use arrow::array::UInt32Array;
use pelton_core::Batch;
use pelton_core::key::{KeyEncoder, Keys, group_owner, key_group, key_hash};
use pelton_core::watermark::Watermark;
use pelton_expr::Expression;

/// How rows are divided.
pub enum Division {
    /// By the key-group range that owns the row's key.
    ByKey(Box<KeyDivision>),
    /// All to one task: this producer's shard.
    To(usize),
    /// Batch by batch to one task after the other, beginning with this one.
    InTurn(usize),
    /// All to each of them: a side input.
    ToAll,
}

/// The key of a row, as the grouping that follows computes it.
pub struct KeyDivision {
    /// Full name of that grouping.
    pub transform: String,
    /// Its `group_by`.
    pub group_by: Vec<Expression>,
    /// Their canonical bytes.
    pub encoder: KeyEncoder,
    /// Reused between batches.
    pub keys: Keys,
}

/// One edge out of a task.
pub struct Exchange {
    /// How rows are divided.
    pub division: Division,
    /// One channel a task of the next stage.
    pub targets: Vec<Sender>,
    /// Aggregates rows before they are sent, where that changes nothing.
    pub lift: Option<Box<Lift>>,
}

impl Exchange {
    /// Sends a message; gives how often it had to wait for room.
    pub async fn send(&mut self, message: Message) -> Result<u64, Failure> {
        match message {
            Message::Data(batch) => self.data(batch).await,
            Message::Partial(_) => Err(Failure::Internal { transform: "exchange".into(), message: "partial results are made here".into() }),
            // Splits concern the task that reads them; what crosses an exchange has a merged watermark.
            Message::Split(_) => Ok(0),
            control => {
                let mut waits = self.before(&control).await?;
                for target in 0..self.targets.len() {
                    waits += u64::from(self.to(target, control.clone()).await?);
                }
                Ok(waits)
            }
        }
    }

    async fn data(&mut self, batch: Batch) -> Result<u64, Failure> {
        let mut waits = 0;
        let rest = match &mut self.lift {
            None => Some(batch),
            Some(lift) => {
                let rest = lift.take(batch).await?;
                if lift.is_full() {
                    waits += self.flush(Due::All).await?;
                }
                rest
            }
        };
        let Some(batch) = rest else { return Ok(waits) };
        for (target, part) in self.divide(batch)? {
            waits += u64::from(self.to(target, Message::Data(part)).await?);
        }
        Ok(waits)
    }

    /// Sends the partial results that a control message must not overtake.
    async fn before(&mut self, control: &Message) -> Result<u64, Failure> {
        let waits = match control {
            Message::Watermark(Watermark::Active(at)) => self.flush(Due::By(*at)).await?,
            _ => self.flush(Due::All).await?,
        };
        match (&mut self.lift, control) {
            (Some(lift), Message::Watermark(Watermark::Active(at))) => lift.passed(*at),
            (Some(lift), Message::Watermark(Watermark::Idle)) => lift.idled(),
            // What the old version has aggregated is on its way.
            (Some(lift), Message::Barrier(Barrier { cut: Some(cut), .. })) => lift.renew(cut)?,
            _ => {}
        }
        Ok(waits)
    }

    async fn flush(&mut self, due: Due) -> Result<u64, Failure> {
        let Some(lift) = &mut self.lift else { return Ok(0) };
        let mut waits = 0;
        for (target, partial) in lift.flush(due, self.targets.len())? {
            waits += u64::from(self.to(target, Message::Partial(partial)).await?);
        }
        Ok(waits)
    }

    async fn to(&self, target: usize, message: Message) -> Result<bool, Failure> {
        self.targets[target].send(message).await.map_err(|_| Failure::Cancelled)
    }

    fn divide(&mut self, batch: Batch) -> Result<Vec<(usize, Batch)>, Failure> {
        let targets = self.targets.len();
        let division = match &mut self.division {
            Division::To(shard) => return Ok(vec![(*shard % targets, batch)]),
            Division::InTurn(next) => {
                let target = *next % targets;
                *next = target + 1;
                return Ok(vec![(target, batch)]);
            }
            Division::ToAll => return Ok((0..targets).map(|target| (target, batch.clone())).collect()),
            Division::ByKey(_) if targets == 1 => return Ok(vec![(0, batch)]),
            Division::ByKey(division) => division,
        };
        let columns = group_columns(&division.transform, &division.group_by, &batch)?;
        encode(&division.encoder, &columns, batch.num_rows(), &mut division.keys);
        let mut rows: Vec<Vec<u32>> = vec![Vec::with_capacity(batch.num_rows() / targets + 1); targets];
        for row in 0..batch.num_rows() {
            let group = key_group(key_hash(division.keys.get(row)));
            rows[group_owner(group, targets)].push(row as u32);
        }
        let parts = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        Ok(parts
            .map(|(target, rows)| {
                (target, if rows.len() == batch.num_rows() { batch.clone() } else { batch.take(&UInt32Array::from(rows)) })
            })
            .collect())
    }
}

/// The columns that a grouping groups by. A row whose key cannot be computed fails the pipeline: a grouping has no error output.
pub fn group_columns(transform: &str, group_by: &[Expression], batch: &Batch) -> Result<Vec<arrow::array::ArrayRef>, Failure> {
    let refusals = crate::operator::Refusals { transform: transform.into(), plugin: None, port: None };
    let mut columns = Vec::with_capacity(group_by.len());
    for expression in group_by {
        let evaluated = expression.evaluate(&batch.rows);
        refusals.refuse(batch, &evaluated.errors, &mut crate::operator::Out::new(pelton_core::Instant::MIN))?;
        columns.push(evaluated.array);
    }
    Ok(columns)
}

/// The canonical keys of rows; without key columns every row has the empty key.
pub fn encode(encoder: &KeyEncoder, columns: &[arrow::array::ArrayRef], rows: usize, keys: &mut Keys) {
    if columns.is_empty() {
        keys.clear();
        keys.offsets.resize(rows + 1, 0);
    } else {
        encoder.encode(columns, keys);
    }
}

//! The state of the last checkpoint brought to a new version, and back, where nobody sees it: what a plugin's `migrate` refuses is known before the cut.
//!
//! It takes the way of the real thing: the old version holds the cells, the new one takes its place as at a barrier, and the sweep goes on to its
//! end. Of very much state a part is tried, by key.

use super::NewVersion;
use super::trial::without_effects;
use crate::bind::{BoundNode, OperatorPlan};
use crate::failure::Failure;
use crate::metrics::NodeMetrics;
use crate::operator::Operator;
use crate::operators::combine::Combine;
use crate::operators::stateful::Stateful;
use pelton_core::evolution::Book;
use pelton_core::key::KEY_GROUPS;
use pelton_state::Rows;
use pelton_state::durable::{Checkpoints, Snapshot};
use std::sync::Arc;

/// State that is tried at most, of a transform.
const BYTES: usize = 64 << 20;
/// Key groups that are read at once.
const GROUPS: u16 = 16;

/// What a checkpoint has of a transform.
pub struct Stored {
    /// What it is made of.
    pub book: Book,
    /// By name, in order of address.
    pub rows: Vec<(String, Rows)>,
}

/// How state fared.
#[derive(Debug)]
pub struct Passage {
    /// Cells that the new version can go on with.
    pub cells: usize,
    /// Why the old version could not go on with them afterwards.
    pub back: Option<Failure>,
}

/// What the newest checkpoint has of a transform with this uid; `None`: nothing.
pub async fn stored(store: &Checkpoints, uid: &str) -> Result<Option<Stored>, Failure> {
    let stored = store.stored().await.map_err(Failure::store)?;
    let Some(newest) = stored.epochs.first() else { return Ok(None) };
    let Some(operator) = newest.manifest.contents.operators.iter().find(|operator| operator.uid == uid) else { return Ok(None) };
    let schema = operator.states.iter().map(|state| &state.schema).find(|schema| !schema.is_empty());
    let damaged = |message: String| Failure::Checkpoint { message: format!("transform `{uid}`: {message}"), refused: true };
    let Some(book) = Book::read(schema.map_or(&[][..], |schema| schema)).map_err(damaged)? else { return Ok(None) };
    let snapshot: Snapshot = store.snapshot(newest);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let names: Vec<&String> = operator.states.iter().filter(|state| !state.unkeyed).map(|state| &state.name).collect();
    for first in (0..KEY_GROUPS).step_by(GROUPS.into()) {
        for name in &names {
            let groups = first..(first + GROUPS).min(KEY_GROUPS);
            let mut merge = snapshot.rows(uid, name, groups).await.map_err(Failure::store)?;
            while let Some(portion) = merge.next().await.map_err(Failure::store)? {
                bytes += portion.used();
                rows.push(((*name).clone(), portion));
            }
        }
        if bytes > BYTES {
            break;
        }
    }
    Ok(Some(Stored { book, rows }))
}

/// Tries it. An error is what would have stopped the pipeline.
pub fn run(state: Stored, before: BoundNode, after: BoundNode, with_back: bool) -> Result<Passage, Failure> {
    let internal = |message: String| Failure::Internal { transform: "swap".into(), message };
    let (before, after) = (without_effects(before), without_effects(after));
    let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| internal(error.to_string()))?;
    tokio::task::LocalSet::new().block_on(&executor, async move {
        let mut operator = holding(state, before.clone())?;
        let cells = settled(&mut *operator).await?;
        renewed(&mut *operator, after).await?;
        let back = match with_back {
            true => renewed(&mut *operator, before).await.err(),
            false => None,
        };
        operator.abort().await;
        Ok(Passage { cells, back })
    })
}

/// The old version with its cells.
fn holding(state: Stored, bound: BoundNode) -> Result<Box<dyn Operator>, Failure> {
    let transform = bound.refusals.transform.clone();
    let metrics = Arc::new(NodeMetrics::new(transform.clone(), String::new(), bound.ports.clone()));
    let keeps_nothing = || Failure::Internal { transform: transform.clone(), message: "it keeps no state".into() };
    let declared = bound.declared().ok_or_else(keeps_nothing)?;
    let refused = |message: String| Failure::Checkpoint { message: format!("transform `{transform}`: {message}"), refused: true };
    let evolved = state.book.evolve(&declared, &|_| false);
    let evolved = evolved.map_err(|_| refused("its state in the last checkpoint is not what it keeps".into()))?;
    let mut operator: Box<dyn Operator> = match bound.plan {
        OperatorPlan::Stateful(plan) => Box::new(Stateful::new(*plan, Some(Arc::new(evolved)), metrics, bound.refusals)?),
        OperatorPlan::Combine(plan) => Box::new(Combine::new(*plan, Arc::default(), bound.refusals)?.going_on(Some(&evolved))),
        _ => return Err(keeps_nothing()),
    };
    for (name, rows) in &state.rows {
        let mut result = Ok(());
        operator.visit_cells(&mut |of, cells| {
            if of == name {
                result = cells.restore(rows.iter());
            }
        });
        result.map_err(|error| refused(error.to_string()))?;
    }
    operator.restore(&[])?;
    Ok(operator)
}

async fn renewed(operator: &mut dyn Operator, bound: BoundNode) -> Result<(), Failure> {
    let version = NewVersion::open(bound, true, 1)?;
    operator.renew(&version).await?;
    settled(operator).await.map(drop)
}

/// Brings all cells to the present; gives how many there are.
async fn settled(operator: &mut dyn Operator) -> Result<usize, Failure> {
    while operator.is_settling() {
        operator.settle().await?;
    }
    let mut cells = 0;
    operator.visit_cells(&mut |_, held| cells += held.len());
    Ok(cells)
}

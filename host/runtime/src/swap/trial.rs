//! A new version on rows that have just come in, where nobody sees what it makes of them.
//!
//! It runs on a thread of its own, with metrics of its own; what it gives out is counted and dropped.

use crate::bind::{BoundNode, OperatorPlan};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::{NodeMetrics, Tasting};
use crate::operator::{Operator, Out};
use crate::operators::{combine, plugin, stateful, stateless};
use crate::{clock, windows};
use arrow::array::{Array, AsArray};
use pelton_core::Batch;
use pelton_plugin::Effects;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// How long rows are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether some have come.
const LOOK: Duration = Duration::from_millis(5);

/// The rows come again when the version runs; nothing may be asked for twice.
const REFUSED: Effects = Effects::Refused("the trial of a swap");

/// A version whose effects are refused.
pub fn without_effects(mut bound: BoundNode) -> BoundNode {
    bound.bindings_mut().for_each(|binding| binding.effects = REFUSED);
    bound
}

/// How rows fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trial {
    /// The transform.
    pub transform: String,
    /// Rows that were tried; none if none came while the trial waited, or if the transform has side inputs.
    pub rows: u64,
    /// Of these: refused.
    pub refused: u64,
    /// Why the first of them was.
    #[serde(skip)]
    pub why: Option<String>,
    /// Rows that came of it.
    pub out: u64,
    /// Cells of the last checkpoint that were brought to it, where it keeps its state otherwise.
    pub cells: u64,
}

/// Waits for rows of a transform's input.
pub async fn sample(sample: &Tasting) -> Option<Batch> {
    sample.want();
    let mut waited = Duration::ZERO;
    loop {
        if let Some(rows) = sample.rows() {
            return Some(rows);
        }
        if waited >= PATIENCE {
            return None;
        }
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

/// Tries a version. An error is what would have stopped the pipeline.
pub fn run(mut bound: BoundNode, rows: Batch) -> Result<Trial, Failure> {
    let internal = |message: String| Failure::Internal { transform: "swap".into(), message };
    let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| internal(error.to_string()))?;
    let groups = matches!(bound.plan, OperatorPlan::Combine(_));
    // Refused rows are to be counted, and not to end the trial; one that a grouping refuses would end the pipeline.
    let beyond = bound.ports.len();
    let errors = (!groups).then(|| *bound.refusals.port.get_or_insert(beyond));
    let transform = bound.refusals.transform.clone();
    tokio::task::LocalSet::new().block_on(&executor, async move {
        let (number, window_fn) = (rows.num_rows() as u64, bound.window_fn);
        let mut operator = operator(without_effects(bound))?;
        let mut out = Out::new(clock::now());
        let rows = windows::fixed(rows, window_fn, &mut out.account);
        out.account = Default::default();
        operator.data(0, rows, &mut out).await?;
        if groups {
            // All windows fire, so that results are made, too.
            operator.end(End::Drained, &mut out).await?;
        }
        let came = |message: &Message| match message {
            Message::Data(batch) => batch.num_rows() as u64,
            _ => 0,
        };
        let given: u64 = out.messages.iter().map(|(_, message)| came(message)).sum();
        let refused = out.account.errors;
        let why = out.messages.iter().find_map(|(port, message)| first_of(message).filter(|_| port.is_some() && *port == errors));
        Ok(Trial { transform, rows: number, refused, why, out: given.saturating_sub(refused), cells: 0 })
    })
}

/// The message of the first error row.
fn first_of(message: &Message) -> Option<String> {
    let Message::Data(batch) = message else { return None };
    let texts = batch.rows.column_by_name("msg")?.as_string_opt::<i32>()?;
    (!texts.is_empty()).then(|| texts.value(0).to_owned())
}

fn operator(bound: BoundNode) -> Result<Box<dyn Operator>, Failure> {
    let bound = match stateless(bound) {
        Ok(operator) => return Ok(operator),
        Err(bound) => *bound,
    };
    let transform = bound.refusals.transform.clone();
    let metrics = Arc::new(NodeMetrics::new(transform.clone(), String::new(), bound.ports.clone()));
    match bound.plan {
        OperatorPlan::Plugin { binding, ports } => {
            let instance = binding.open().map_err(|error| Failure::Plugin { transform, error })?;
            Ok(Box::new(plugin::Plugin {
                binding,
                instance: Some(instance),
                ports,
                window_fn: bound.window_fn,
                metrics,
                counted: Default::default(),
                refusals: bound.refusals,
            }))
        }
        OperatorPlan::Stateful(plan) => Ok(Box::new(stateful::Stateful::new(*plan, None, metrics, bound.refusals)?)),
        OperatorPlan::Combine(plan) => Ok(Box::new(combine::Combine::new(*plan, Arc::default(), bound.refusals)?)),
        _ => Err(Failure::Internal { transform, message: "a transform of this kind is not swapped".into() }),
    }
}

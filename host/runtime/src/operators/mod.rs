//! The built-in operators, one file each, simplest first.

pub mod aggregate;
pub mod combine;
mod evolving;
pub mod explode;
pub mod filter;
pub mod flatten;
pub mod join;
pub mod late;
pub mod log;
pub mod lookup_join;
pub mod map;
pub mod match_all;
pub mod partition;
pub mod plugin;
pub mod reshuffle;
#[cfg(test)]
mod restart;
pub mod set_watermark;
pub mod sided;
pub mod sink;
pub mod stateful;
pub mod strip;
pub mod timed_join;
pub mod timestamps;
pub mod validate;
pub mod window_into;
pub mod windowing_info;

use crate::bind::{BoundNode, OperatorPlan};
use crate::operator::{MAIN, Operator};

/// The operator of a node that keeps nothing and needs nothing of its task; the node back where it is no such.
pub fn stateless(bound: BoundNode) -> Result<Box<dyn Operator>, Box<BoundNode>> {
    let (refusals, window_fn, schema) = (bound.refusals.clone(), bound.window_fn, bound.schemas[MAIN].clone());
    Ok(match bound.plan {
        OperatorPlan::WindowInto => Box::new(window_into::WindowInto { window_fn }),
        OperatorPlan::ExtractWindowingInfo { passed, fields } => {
            Box::new(windowing_info::ExtractWindowingInfo { schema, passed, fields, window_fn })
        }
        OperatorPlan::Map { columns } => Box::new(map::Map { schema, columns, refusals }),
        OperatorPlan::Filter { keep } => Box::new(filter::Filter { keep, refusals }),
        OperatorPlan::Partition { by, outputs, unknown } => Box::new(partition::Partition { by, outputs, unknown, refusals }),
        OperatorPlan::Flatten => Box::new(flatten::Flatten { schema }),
        OperatorPlan::Log { level, prefix } => Box::new(log::Log { level, prefix }),
        OperatorPlan::Strip { column } => Box::new(strip::Strip { schema, column }),
        OperatorPlan::Explode { fields, cross_product } => Box::new(explode::Explode { schema, fields, cross_product, refusals }),
        OperatorPlan::Reshuffle { .. } => Box::new(reshuffle::Reshuffle),
        OperatorPlan::Validate { schema } => Box::new(validate::Validate { schema, refusals }),
        _ => return Err(Box::new(bound)),
    })
}

//! Expressions over Arrow: Beam's generic language and SQL scalar expressions. The only crate that knows DataFusion.
//!
//! In reading order:
//! - [`expression`]: what a caller sees: compile a text against a schema, evaluate it on a batch.
//! - [`generic`]: Beam's generic language.
//! - [`sql`]: text of SQL to a checked syntax tree, and on to DataFusion's logical expression.
//! - [`lookup`]: side inputs in SQL become columns.
//! - [`query`]: SQL queries over named inputs, to a small plan of ours.
//! - [`planner`]: what DataFusion's planner is given for both.
//! - [`program`]: a logical expression to one that runs: coercion, checked arithmetic, types of results.
//! - [`mend`]: rewrites where kernels do not follow our rules.
//! - [`signed`]: counts of lists are signed numbers.
//! - [`functions`]: which SQL functions there are, and which are refused.
//!
//! Invariants: the same rows give the same values, whenever and wherever they are evaluated (no clock, no randomness); a
//! failing row is a row error and null in the result, it never fails the batch; a row fails in a batch if and only if it fails alone.

pub mod expression;
mod functions;
#[cfg(test)]
mod fuzz;
mod generic;
pub mod lookup;
mod mend;
mod planner;
mod program;
pub mod query;
mod signed;
mod sql;

pub use expression::{Evaluated, Expression, ExpressionError, Language, check_syntax};
pub use lookup::{Lookup, Lowered, lower_lookups};
pub use query::{Query, check_query, plan_query};

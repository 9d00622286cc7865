//! Expressions over Arrow: Beam's generic language and SQL scalar expressions. The only crate that knows DataFusion.
//!
//! In reading order:
//! - [`expression`]: what a caller sees: compile a text against a schema, evaluate it on a batch.
//!
//! Invariants: the same rows give the same values, whenever and wherever they are evaluated (no clock, no randomness); a
//! failing row is a row error and null in the result, it never fails the batch; nothing here panics on a user's text or data.

pub mod expression;

pub use expression::{Evaluated, Expression, ExpressionError, Language, check_syntax};

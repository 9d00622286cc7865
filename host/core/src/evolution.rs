//! State that outlives the plugin that wrote it: which of it a changed plugin goes on with, and how its values are brought up to date.
//!
//! In reading order:
//! - [`types`]: the types of values in the plain encoding of the contract (`wit/spec.wit`).
//! - [`rules`]: from one type to another, by rules like Avro's; [`convert`]: one value after them.
//! - [`book`]: what a plugin's state is made of, as a checkpoint keeps it, and what becomes of it with another plugin.
//! - [`mod@outlook`]: whether a plugin can take over from another, and the other way round; what asks is a start and a swap.
//!
//! A cell carries the number of the *era* in which it was written. An era is a list of states with their types and versions; one begins when
//! a plugin comes whose values are others. The book holds the eras of which there are still cells.
//!
//! Invariants: a conversion never loses what the new type can say, and never depends on the value: it fits every value of the old type or is
//! refused before anything is read. A place, once given to a state, is never given to another.

pub mod book;
pub mod convert;
pub mod outlook;
pub mod rules;
pub mod types;

pub use book::{Book, Change, Clock, Declared, Era, Evolved, Kind, Migration, Placed, Plan, Problem, Report, State, Step, Timer};
pub use outlook::{Outlook, Passage, Way, outlook};
pub use rules::{Conversion, Mismatch, resolve};
pub use types::Field;

#[cfg(test)]
mod tests;

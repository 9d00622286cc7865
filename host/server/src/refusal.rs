//! Why something that was asked of a host is not done, by who must act.

use serde_json::Value;

/// The kinds of refusals; each is one status of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What was sent is not understood.
    Malformed,
    /// Nobody has said who asks.
    Unauthenticated,
    /// Whoever asks may not.
    Forbidden,
    /// There is no such thing.
    Absent,
    /// It is there, and cannot be asked for so.
    NoMethod,
    /// It is not in the state for it.
    Conflict,
    /// It is larger than allowed.
    TooLarge,
    /// It is not of the type that is wanted.
    Unsupported,
    /// It is understood, and wrong.
    Invalid,
    /// The host is at fault, or its disk.
    Broken,
    /// The host has too much to do.
    Busy,
    /// It took too long to arrive.
    Slow,
}

/// A refusal in a sentence that says what to do next.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its kind.
    pub why: Why,
    /// For people.
    pub message: String,
    /// For programs: what else the answer holds.
    pub details: Option<Value>,
}

impl Refusal {
    /// Of this kind, with this message.
    pub fn new(why: Why, message: impl Into<String>) -> Refusal {
        Refusal { why, message: message.into(), details: None }
    }

    /// The disk does not do what the host wants of it.
    pub fn disk(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Refusal {
        Refusal::new(Why::Broken, format!("the host cannot {doing} {}: {error}", path.display()))
    }
}

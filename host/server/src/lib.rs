//! Supervises pipelines: the one of `pelton run`, and the many of a host.
//!
//! In reading order:
//! - [`mod@supervise`]: a pipeline from its start to its end, over all of its lives; [`state`] is its folder, [`control`] what it is told from outside,
//!   [`versions`] its file and what swaps have made of it, [`lives`] one after the other, [`swaps`] what is swapped in them, [`weight`] its share of the processor, [`crashes`] lives that end at counts of rows, for tests.
//! - [`host`]: many pipelines with their versions; [`hosted`] is one of them, [`diff`] what a deployment changes, [`status`] and [`metrics`] what
//!   they do.
//! - [`folder`], [`components`], [`audit`], [`logs`]: what a host keeps on disk; [`durable`]: how; [`trust`]: whose plugins it takes.
//! - [`api`]: what can be asked of it by HTTP; [`http`]: how that is spoken; [`listen`]: where; [`access`] and [`origin`]: by whom; [`names`]: what may be a name;
//!   [`refusal`]: why something is not done.
//! - [`serve`]: a host from its start to its end. [`client`]: the other side.
//!
//! **Invariants:** only this crate knows HTTP. Nothing here writes to a terminal; whoever supervises says what is to be seen.

pub mod access;
pub mod api;
pub mod audit;
pub mod client;
pub mod components;
pub mod control;
pub mod crashes;
pub mod diff;
pub mod durable;
pub mod folder;
#[cfg(test)]
mod fuzz;
pub mod host;
pub mod hosted;
pub mod http;
pub mod listen;
pub mod lives;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod origin;
pub mod refusal;
pub mod serve;
pub mod state;
pub mod status;
pub mod supervise;
pub mod swaps;
pub mod trust;
pub mod versions;
pub mod weight;

pub use supervise::{End, Event, Job, Outcome, Watcher, supervise};

/// What keeps a supervisor from its work; the pipeline's own failures are [`pelton_runtime::Failure`].
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// What was given cannot be used; the message says what to do.
    #[error("{0}")]
    User(String),
}

impl ServerError {
    /// With this message.
    pub fn user(message: impl Into<String>) -> ServerError {
        ServerError::User(message.into())
    }
}

//! Why a pipeline ends before its input does.

use pelton_connect::ConnectError;
use pelton_plugin::PluginError;
use pelton_state::ScratchError;
use pelton_state::durable::StoreError;

/// What stopped a pipeline, by who must act.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A transform refused a row and nothing handles its errors.
    #[error(
        "transform `{transform}` refused a row: {message}\n  position: {position}\n  element:  {element}{plugin}{stack}\n  next: mend the row or the transform, or send refused rows to an output with `error_handling: {{output: errors}}` on `{transform}`"
    )]
    Row { transform: String, message: String, position: String, element: String, plugin: String, stack: String },
    /// A plugin broke its contract, its limits, or could not be used.
    #[error("transform `{transform}`: {error}")]
    Plugin { transform: String, error: PluginError },
    /// A source or a sink.
    #[error("transform `{transform}`: {error}")]
    Connect { transform: String, error: ConnectError },
    /// What the file says and what the data is do not fit; found when schemas are known.
    #[error("{file}:{line}:{column}: transform `{transform}`: {message}{}", help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default())]
    Bind { transform: String, file: String, line: usize, column: usize, message: String, help: Option<String> },
    /// State that outgrew its share of the memory.
    #[error(
        "transform `{transform}` holds {held} MiB of state, more than the {limit} MiB that the memory backend may use\n  next: raise `options.pelton.memory`, use smaller windows or fewer keys, or, where it is a grouping or a plugin, let state lie on disk with `options.pelton.state: {{backend: fjall}}`"
    )]
    State { transform: String, held: usize, limit: usize },
    /// The disk of cells that do not fit into memory.
    #[error("transform `{transform}`: {error}")]
    Scratch { transform: String, error: ScratchError },
    /// An arithmetic overflow and the like in an aggregation.
    #[error("transform `{transform}`: {message}")]
    Aggregate { transform: String, message: String },
    /// More rows were refused than `error_handling.threshold` allows.
    #[error(
        "transform `{transform}` refused {bad} of {total} rows{window}, more than the share of {threshold} that its `error_handling` allows\n  next: look at its error output, mend the rows or the transform, or raise `threshold`"
    )]
    Threshold { transform: String, bad: u64, total: u64, window: String, threshold: f64 },
    /// The checkpoint store.
    #[error("checkpoints: {error}{}", error.help().map(|help| format!("\n  next: {help}")).unwrap_or_default())]
    Store { error: StoreError },
    /// What was found in checkpoints, or what became of one. `refused`: trying again does not help.
    #[error("{message}")]
    Checkpoint { message: String, refused: bool },
    /// Ours.
    #[error("internal error in `{transform}`: {message}; please report it")]
    Internal { transform: String, message: String },
    /// Another task failed first; its failure is the one to tell.
    #[error("stopped because another task failed")]
    Cancelled,
}

impl Failure {
    /// A failure of the checkpoint store.
    pub fn store(error: StoreError) -> Failure {
        Failure::Store { error }
    }

    /// Whether the pipeline may go on from its last checkpoint without anybody having done anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Failure::Connect { error, .. } => error.is_transient(),
            Failure::Store { error } => error.is_transient(),
            Failure::Checkpoint { refused, .. } => !refused,
            _ => false,
        }
    }

    /// A later process has taken over. Whatever else failed then failed because of that.
    pub fn is_fenced(&self) -> bool {
        match self {
            Failure::Connect { error, .. } => matches!(error, ConnectError::Fenced { .. }),
            Failure::Store { error } => matches!(error, StoreError::Fenced { .. }),
            _ => false,
        }
    }

    /// The transform whose work has failed.
    pub fn transform(&self) -> Option<&str> {
        match self {
            Failure::Row { transform, .. }
            | Failure::Plugin { transform, .. }
            | Failure::Aggregate { transform, .. }
            | Failure::Threshold { transform, .. } => Some(transform),
            _ => None,
        }
    }

    /// The transform that the message is about, where the message does not say its place in the file itself.
    pub fn unplaced(&self) -> Option<&str> {
        match self {
            Failure::Row { transform, .. }
            | Failure::Plugin { transform, .. }
            | Failure::Connect { transform, .. }
            | Failure::State { transform, .. }
            | Failure::Scratch { transform, .. }
            | Failure::Aggregate { transform, .. }
            | Failure::Threshold { transform, .. } => Some(transform),
            Failure::Bind { .. } | Failure::Store { .. } | Failure::Checkpoint { .. } | Failure::Internal { .. } | Failure::Cancelled => {
                None
            }
        }
    }

    /// What to do, where the message does not say it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Failure::Connect { error: ConnectError::External { .. }, .. } => Some("mend what failed outside, and start the pipeline again"),
            Failure::Connect { error, .. } => error.help(),
            _ => None,
        }
    }

    /// The user's input is wrong (exit 2), rather than the pipeline having failed (exit 1).
    pub fn is_users(&self) -> bool {
        match self {
            Failure::Bind { .. } => true,
            Failure::Store { error } => matches!(error, StoreError::User { .. }),
            Failure::Connect { error, .. } => matches!(error, ConnectError::User { .. }),
            Failure::Plugin { error, .. } => !matches!(
                error,
                PluginError::Contract { .. }
                    | PluginError::BudgetSpent { .. }
                    | PluginError::BreakerOpen { .. }
                    | PluginError::Internal { .. }
            ),
            _ => false,
        }
    }
}

//! Why a pipeline ends before its input does.

use pelton_connect::ConnectError;
use pelton_plugin::PluginError;

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
        "transform `{transform}` holds {held} MiB of state, more than the {limit} MiB that the memory backend may use\n  next: raise `options.pelton.memory`, use smaller windows or fewer keys"
    )]
    State { transform: String, held: usize, limit: usize },
    /// An arithmetic overflow and the like in an aggregation.
    #[error("transform `{transform}`: {message}")]
    Aggregate { transform: String, message: String },
    /// More rows were refused than `error_handling.threshold` allows.
    #[error(
        "transform `{transform}` refused {bad} of {total} rows{window}, more than the share of {threshold} that its `error_handling` allows\n  next: look at its error output, mend the rows or the transform, or raise `threshold`"
    )]
    Threshold { transform: String, bad: u64, total: u64, window: String, threshold: f64 },
    /// Ours.
    #[error("internal error in `{transform}`: {message}; please report it")]
    Internal { transform: String, message: String },
    /// Another task failed first; its failure is the one to tell.
    #[error("stopped because another task failed")]
    Cancelled,
}

impl Failure {
    /// The user's input is wrong (exit 2), rather than the pipeline having failed (exit 1).
    pub fn is_users(&self) -> bool {
        match self {
            Failure::Bind { .. } => true,
            Failure::Connect { error, .. } => matches!(error, ConnectError::User { .. }),
            Failure::Plugin { error, .. } => {
                !matches!(error, PluginError::Contract { .. } | PluginError::BudgetSpent { .. } | PluginError::Internal { .. })
            }
            _ => false,
        }
    }
}

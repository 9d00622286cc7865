//! What can go wrong, each with the next step in its message.
//!
//! A row that fails is no error here: it is a [`pelton_core::RowError`] of a call that succeeded.

use std::ops::Range;

/// A fault that stops the load, the bind or the pipeline.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PluginError {
    /// The file cannot be read, or its code cannot be compiled or described.
    #[error("cannot load plugin {plugin}: {message}")]
    Load {
        /// Path or name.
        plugin: String,
        /// What failed, and what to do.
        message: String,
    },
    /// The bytes are not a WebAssembly component.
    #[error("{plugin} is not a WebAssembly component: {message}")]
    NotAComponent {
        /// Path or name.
        plugin: String,
        /// What it is instead, and what to do.
        message: String,
    },
    /// A component of another contract or role.
    #[error(
        "{plugin} exports {found}, but {wanted} is needed here. Build it against the `pelton:plugin` package of this version of Pelton (`pelton plugin build`)"
    )]
    WrongWorld {
        /// Path or name.
        plugin: String,
        /// What it exports.
        found: String,
        /// What was looked for.
        wanted: String,
    },
    /// A transform that is used as what it is not.
    #[error("`{transform}` of {plugin} is {found}, but it is used as {wanted}: {next}")]
    WrongRole {
        /// Path or name.
        plugin: String,
        /// Name in the component.
        transform: String,
        /// What it is.
        found: String,
        /// As what it is used.
        wanted: String,
        /// How to use it.
        next: String,
    },
    /// The component imports what nobody granted.
    #[error(
        "{plugin} imports `{import}`, which is not granted. A plugin is granted nothing but `pelton:plugin/log` by default: remove the call that needs it, or build without WASI (`pelton plugin build`)"
    )]
    Import {
        /// Path or name.
        plugin: String,
        /// The refused interface or function.
        import: String,
    },
    /// The plugin refused the config or the input's schema.
    #[error("transform `{transform}` refused to open: {message}{}", detail_suffix(detail))]
    Open {
        /// Name in the component.
        transform: String,
        /// The plugin's words.
        message: String,
        /// Stack or other detail, may be empty.
        detail: String,
    },
    /// The component has no transform of this name.
    #[error("plugin {plugin} has no transform `{transform}`{}", nearest_suffix(nearest))]
    UnknownTransform {
        /// Path or name.
        plugin: String,
        /// What was asked for.
        transform: String,
        /// The transform that was probably meant.
        nearest: Option<String>,
    },
    /// The input's schema and the plugin do not fit.
    #[error("transform `{transform}` cannot read column `{column}`: {message}")]
    Schema {
        /// Name in the component.
        transform: String,
        /// The column.
        column: String,
        /// Why, and what to do.
        message: String,
    },
    /// The plugin answered what the contract forbids. Nothing of the call was applied; it is the plugin's fault, not a row's.
    #[error(
        "plugin {plugin}, transform `{transform}`, broke the contract: {message}. This is a fault in the plugin or its SDK; the call was not applied"
    )]
    Contract {
        /// Digest of the plugin.
        plugin: String,
        /// Name in the component.
        transform: String,
        /// The breach.
        message: String,
    },
    /// Too much of one batch failed to be narrowed down to single rows.
    #[error(
        "transform `{transform}` of plugin {plugin} failed again and again: the budget of a batch ({calls} calls, limits.batch_calls and limits.batch_time) is spent and {} of its rows \
         are undecided; the last failure was: {last}. Mend the plugin or the input, raise the budget, or set limits.on_budget: error_output to send such rows to the error output",
        rows.len()
    )]
    BudgetSpent {
        /// Digest of the plugin.
        plugin: String,
        /// Name in the component.
        transform: String,
        /// Rows of the batch that were never seen to fail alone.
        rows: Range<u32>,
        /// Calls made.
        calls: u32,
        /// The last failure.
        last: String,
    },
    /// A call that no row is to blame for failed on two instances.
    #[error("transform `{transform}` of plugin {plugin} failed twice: {message}. Mend the plugin{}", detail_suffix(stack))]
    Failed {
        /// Digest of the plugin.
        plugin: String,
        /// Name in the component.
        transform: String,
        /// The second failure.
        message: String,
        /// Its stack, may be empty.
        stack: String,
    },
    /// A fault of the host.
    #[error("internal fault: {0}. Please report it")]
    Internal(String),
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!("\n{detail}") }
}

fn nearest_suffix(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_else(|| "; `pelton plugin inspect` lists those it has".into())
}

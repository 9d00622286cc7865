//! What can go wrong, each with the next step in its message.
//!
//! A row that fails is no error here: it is a [`pelton_core::RowError`] of a call that succeeded.

use pelton_core::grants::Missing;
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
    /// A component of another version of the contract.
    #[error("{plugin} needs version {needs} of the plugin contract (pelton:plugin), and this Pelton has {has}: {next}")]
    OtherContract {
        /// Path or name.
        plugin: String,
        /// The version that it was built against.
        needs: String,
        /// The version of this host.
        has: String,
        /// What to do.
        next: String,
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
    /// The component imports what no grant gives.
    #[error(
        "{plugin} imports `{import}`, which no grant gives. A plugin is granted nothing but `pelton:plugin/log` and its state by default, and what a pipeline can grant besides is listed in docs/reference/grants.md: remove the call that needs it, or build without it (`pelton plugin build`)"
    )]
    Import {
        /// Path or name.
        plugin: String,
        /// The refused interface or function.
        import: String,
    },
    /// The component imports what the pipeline does not grant.
    #[error(
        "{plugin} imports {}, which {} not granted. A plugin is granted nothing but `pelton:plugin/log` and its state by default; to grant it, write in the config of its provider, with the words in capitals filled in:\n{}",
        missing.imports.iter().map(|import| format!("`{import}`")).collect::<Vec<_>>().join(", "),
        if missing.imports.len() == 1 { "is" } else { "are" },
        missing.yaml
    )]
    NotGranted {
        /// Path or name.
        plugin: String,
        /// The imports, and what would grant them.
        missing: Missing,
    },
    /// A value that a grant names cannot be had.
    #[error("the grants of {plugin}: {message}")]
    Grant {
        /// Path or name.
        plugin: String,
        /// What is missing, and what to do.
        message: String,
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
    /// It failed again and again, and its breaker says that the pipeline stops then.
    #[error(
        "transform `{transform}` of plugin {plugin} is no longer called: {after} batches failed within {within} (limits.breaker); the last failure was: {last}. Mend the plugin or the \
         input, or set limits.breaker.policy to pause or error_output to go on without it"
    )]
    BreakerOpen {
        /// Digest of the plugin.
        plugin: String,
        /// Name in the component.
        transform: String,
        /// Batches that failed.
        after: u32,
        /// The time in which they did.
        within: pelton_core::Duration,
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
    /// The plugin's own migration refused an item, or failed on it.
    #[error(
        "plugin {plugin} cannot bring the state `{state}` of the key `{key}` from version {version} of its type: {message}\n  next: mend the migration and start again (the \
         checkpoint is as it was), or drop the state with --drop-state"
    )]
    Migrate {
        /// Digest of the plugin.
        plugin: String,
        /// Name of the state.
        state: String,
        /// The stored version.
        version: u32,
        /// In words.
        key: String,
        /// The plugin's words.
        message: String,
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

//! What a plugin brings over from another version of its state: calls that are halved until the value that fails is known.

use crate::caller::Called;
use crate::error::PluginError;
use std::ops::Range;

/// Values that cannot be brought over.
#[derive(Clone, Debug)]
pub enum MigrateError {
    /// One of them fails whenever it is called with.
    Item {
        /// Digest of the plugin.
        plugin: String,
        /// Its number among those that were given.
        number: usize,
        /// The plugin's words.
        message: String,
    },
    /// The plugin cannot be called, or breaks the contract.
    Plugin(PluginError),
}

/// What is said of an answer that breaks the contract.
pub(crate) fn answered_wrongly(of: &str, why: &str) -> String {
    format!("`migrate` of {of} answered wrongly: {why}; what is stored is as it was, and the version before can go on with it")
}

impl From<PluginError> for MigrateError {
    fn from(error: PluginError) -> Self {
        MigrateError::Plugin(error)
    }
}

/// Calls a plugin with so many values, and with halves of those that fail; what is answered for all, in order.
pub(crate) async fn halve<T>(
    plugin: String,
    count: usize,
    mut call: impl AsyncFnMut(Range<usize>) -> Called<Vec<T>>,
) -> Result<Vec<T>, MigrateError> {
    let mut migrated = Vec::with_capacity(count);
    let mut parts: Vec<Range<usize>> = std::iter::once(0..count).collect();
    while let Some(part) = parts.pop() {
        match call(part.clone()).await? {
            Ok(some) => migrated.extend(some),
            Err(fault) if part.len() > 1 => {
                tracing::debug!(values = part.len(), "a migration failed and is tried in halves: {}", fault.message);
                let middle = part.start + part.len() / 2;
                parts.extend([middle..part.end, part.start..middle]);
            }
            Err(fault) => return Err(MigrateError::Item { plugin, number: part.start, message: fault.message }),
        }
    }
    Ok(migrated)
}

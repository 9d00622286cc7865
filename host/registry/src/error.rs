//! What can go wrong, by who must act. Every message says what to do next.

use std::path::Path;

/// A fault of this crate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// What was asked for cannot be.
    #[error("{0}")]
    User(String),
    /// What was found must not be used.
    #[error("{0}")]
    Refused(String),
    /// A registry or a disk does not do its part.
    #[error("{0}")]
    External(String),
}

impl RegistryError {
    pub(crate) fn user(message: impl Into<String>) -> RegistryError {
        RegistryError::User(message.into())
    }

    pub(crate) fn refused(message: impl Into<String>) -> RegistryError {
        RegistryError::Refused(message.into())
    }

    pub(crate) fn external(message: impl Into<String>) -> RegistryError {
        RegistryError::External(message.into())
    }

    pub(crate) fn disk(doing: &str, path: &Path, error: &std::io::Error) -> RegistryError {
        RegistryError::External(format!("cannot {doing} {}: {error}", path.display()))
    }
}

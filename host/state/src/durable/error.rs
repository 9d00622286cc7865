//! What can go wrong with durable state, by who must act.

use std::fmt::Display;

/// A failure of the checkpoint store. Every message names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An operator of the pipeline must act.
    #[error("{message}")]
    User {
        /// What failed and where, in one sentence.
        message: String,
        /// What to do next.
        help: String,
    },
    /// Something outside failed: a disk, a network. Trying again may succeed.
    #[error("{message}")]
    External {
        /// What failed and where, in one sentence.
        message: String,
    },
    /// The bytes of a file are not those that were written.
    #[error("{file} is damaged: {message}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A later generation owns the pipeline. The process must end, and nothing that it writes counts any more.
    #[error("{message}")]
    Fenced {
        /// Who owns it now.
        message: String,
    },
    /// It is not known what the disk holds: a sync has failed. The process must end and recover; trying again would take lost bytes for written ones.
    #[error("{message}")]
    Fatal {
        /// What failed and where, in one sentence.
        message: String,
    },
    /// A fault of Pelton.
    #[error("internal fault in the checkpoint store: {message}")]
    Internal {
        /// What was thought impossible.
        message: String,
    },
}

impl StoreError {
    /// An operator must act.
    pub fn user(message: impl Into<String>, help: impl Into<String>) -> StoreError {
        StoreError::User { message: message.into(), help: help.into() }
    }

    /// Something outside failed.
    pub fn external(message: impl Into<String>) -> StoreError {
        StoreError::External { message: message.into() }
    }

    /// A file is not what was written.
    pub fn damaged(file: impl Into<String>, message: impl Display) -> StoreError {
        StoreError::Damaged { file: file.into(), message: message.to_string() }
    }

    /// Pelton is at fault.
    pub fn internal(message: impl Display) -> StoreError {
        StoreError::Internal { message: message.to_string() }
    }

    /// A failed call to the file system: what cannot change by itself is an operator's to act on.
    pub fn of_file(doing: &str, path: &str, error: &std::io::Error) -> StoreError {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
        let message = format!("cannot {doing} {path}: {error}");
        match error.kind() {
            NotFound | NotADirectory => StoreError::user(message, "check the folder of the checkpoint store"),
            PermissionDenied | ReadOnlyFilesystem => StoreError::user(message, "give the user that runs pelton write access to the folder"),
            StorageFull => StoreError::user(message, "free space on that disk and start again; no committed epoch is lost"),
            _ => StoreError::external(message),
        }
    }

    /// The next step, where there is one.
    pub fn help(&self) -> Option<&str> {
        match self {
            StoreError::User { help, .. } => Some(help),
            StoreError::Damaged { .. } => Some("put the file back from a copy of the folder, or start from a savepoint with `--from`"),
            StoreError::Fenced { .. } => Some("stop this process; the other one goes on"),
            StoreError::Fatal { .. } => Some("look at the disk and at the kernel's log, then start again; no committed epoch is lost"),
            StoreError::External { .. } | StoreError::Internal { .. } => None,
        }
    }

    /// Starting again inside this process may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::External { .. })
    }
}

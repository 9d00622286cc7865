//! What can go wrong at the ends of a pipeline, by who must act.

use std::fmt::Display;

/// A failure of a connector as a whole; what is wrong with one row is a row error or a format error instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The pipeline or its surroundings must be changed by its author.
    #[error("{message}")]
    User {
        /// What failed and where, in one sentence.
        message: String,
        /// What to do next.
        help: String,
    },
    /// Something outside failed: a disk, a broker. The same pipeline may succeed later.
    #[error("{message}")]
    External {
        /// What failed and where, in one sentence.
        message: String,
    },
    /// A later process of the same pipeline has taken over. This one stops.
    #[error("{message}")]
    Fenced {
        /// Who was found, and where.
        message: String,
    },
    /// The rows are not what the pipeline says that they are.
    #[error("{message}")]
    Data {
        /// What is not so, with examples.
        message: String,
    },
    /// A fault of Pelton.
    #[error("internal fault in a connector: {message}")]
    Internal {
        /// What was thought impossible.
        message: String,
    },
}

impl ConnectError {
    /// The author must act.
    pub fn user(message: impl Into<String>, help: impl Into<String>) -> ConnectError {
        ConnectError::User { message: message.into(), help: help.into() }
    }

    /// Something outside failed.
    pub fn external(message: impl Into<String>) -> ConnectError {
        ConnectError::External { message: message.into() }
    }

    /// Pelton is at fault.
    pub fn internal(message: impl Display) -> ConnectError {
        ConnectError::Internal { message: message.to_string() }
    }

    /// A failed call to the file system: what cannot change by itself is the author's to act on.
    pub fn of_file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> ConnectError {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let message = format!("cannot {doing} {}: {error}", path.display());
        match error.kind() {
            NotFound => ConnectError::user(message, "check the path; a relative path starts at the pipeline's working directory"),
            PermissionDenied => ConnectError::user(message, "give the user that runs pelton access to it"),
            IsADirectory | NotADirectory => ConnectError::user(message, "name files; a glob such as `DIR/*.json` takes all of a directory"),
            ReadOnlyFilesystem => ConnectError::user(message, "mount that disk for writing, or write elsewhere"),
            StorageFull | QuotaExceeded => ConnectError::user(message, "free space on that disk, or write elsewhere"),
            _ => ConnectError::external(message),
        }
    }

    /// Whether the pipeline may go on from its last checkpoint without anybody having done anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, ConnectError::External { .. })
    }

    /// The next step, where there is one.
    pub fn help(&self) -> Option<&str> {
        match self {
            ConnectError::User { help, .. } => Some(help),
            _ => None,
        }
    }
}

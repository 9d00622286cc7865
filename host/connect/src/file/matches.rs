//! The files that a pattern matches, for those who want to know of them and not to read them: here no file is an answer too.

use super::find::{absolute, paths};
use crate::ConnectError;
use std::path::Path;

/// What is known of a file without opening it.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchedFile {
    /// As the pattern begins: relative for a relative pattern.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, seconds since the epoch, where the file system says.
    pub updated_seconds: Option<f64>,
}

/// The files of a path or glob, in the order of their names. Blocks.
pub fn match_files(base_dir: &Path, pattern: &str) -> Result<Vec<MatchedFile>, ConnectError> {
    let full = absolute(base_dir, pattern)?;
    let found = paths(&full, pattern)?.unwrap_or_else(|| vec![full]);
    let mut files = Vec::new();
    for path in found {
        files.extend(matched(base_dir, pattern, &path)?);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// `None`: it is not there, or it is a directory.
fn matched(base_dir: &Path, pattern: &str, path: &Path) -> Result<Option<MatchedFile>, ConnectError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConnectError::of_file("look at", path, &error)),
    };
    if metadata.is_dir() {
        return Ok(None);
    }
    let shown = match Path::new(pattern.strip_prefix("file://").unwrap_or(pattern)).is_absolute() {
        true => path,
        false => path.strip_prefix(base_dir).unwrap_or(path),
    };
    let updated = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let updated_seconds = updated.map(|since| since.as_secs_f64());
    Ok(Some(MatchedFile { path: shown.display().to_string(), bytes: metadata.len(), updated_seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub.txt")).unwrap();
        for name in ["b.txt", "a.txt", ".c.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let found = |pattern: &str| -> Vec<(String, u64)> {
            match_files(dir.path(), pattern).unwrap().into_iter().map(|file| (file.path, file.bytes)).collect()
        };
        assert_eq!(found("*.txt"), [("a.txt".to_string(), 5), ("b.txt".to_string(), 5)]);
        assert_eq!(found("b.txt"), [("b.txt".to_string(), 5)]);
        assert_eq!(found("none.txt"), []);
        assert_eq!(found("*.json"), []);
        let full = format!("{}/a.*", dir.path().display());
        assert_eq!(found(&full)[0].0, format!("{}/a.txt", dir.path().display()));
        assert!(match_files(dir.path(), "gs://bucket/*").is_err());
        assert!(match_files(dir.path(), "a.txt").unwrap()[0].updated_seconds.unwrap() > 1.6e9);
    }
}

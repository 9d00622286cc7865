//! A path or glob in a config to the files that it means.

use crate::ConnectError;
use std::path::{Path, PathBuf};

/// A file that exists and can be read.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub length: u64,
}

/// The files of a path or glob, in the order of their names. Blocks. Hidden files are met only by patterns that begin with a dot,
/// so that a sink's temporaries are never read.
pub fn find(base_dir: &Path, pattern: &str) -> Result<Vec<FoundFile>, ConnectError> {
    let full = absolute(base_dir, pattern)?;
    let Some(paths) = paths(&full, pattern)? else { return Ok(vec![readable(full)?]) };
    let files = paths.into_iter().filter(|path| !path.is_dir()).map(readable);
    let mut files = files.collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        return Err(ConnectError::user(
            format!("no file matches {}", full.display()),
            "check the pattern; a relative one starts at the pipeline's working directory, and `*` matches no hidden file",
        ));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What a pattern matches, directories too; `full` is the same as a path. `None`: it names one file, which may not exist.
pub fn paths(full: &Path, pattern: &str) -> Result<Option<Vec<PathBuf>>, ConnectError> {
    // A name with brackets or stars in it that exists is meant as it stands.
    if !pattern.contains(['*', '?', '[']) || full.exists() {
        return Ok(None);
    }
    let text = full.to_str().ok_or_else(|| ConnectError::user(format!("the path {} is not UTF-8", full.display()), "rename it"))?;
    let options = glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(text, options).map_err(|error| {
        ConnectError::user(format!("`{pattern}` is no glob: {error}"), "write a star for any part of a name, such as DIR/*.json")
    })?;
    let paths = paths.map(|path| path.map_err(|error| ConnectError::of_file("search", error.path(), error.error())));
    paths.collect::<Result<Vec<_>, _>>().map(Some)
}

/// A path in a config as one of this machine.
pub fn absolute(base_dir: &Path, path: &str) -> Result<PathBuf, ConnectError> {
    let local = path.strip_prefix("file://").unwrap_or(path);
    match local.split_once("://") {
        Some((scheme, _)) => Err(ConnectError::user(format!("`{scheme}://` paths cannot be opened yet: {path}"), "use a local path")),
        None => Ok(base_dir.join(local)),
    }
}

fn readable(path: PathBuf) -> Result<FoundFile, ConnectError> {
    let of_file = |error: &std::io::Error| ConnectError::of_file("read", &path, error);
    let metadata = std::fs::metadata(&path).map_err(|error| of_file(&error))?;
    if metadata.is_dir() {
        return Err(ConnectError::user(
            format!("cannot read {}: it is a directory", path.display()),
            format!("name its files, such as {}/*", path.display()),
        ));
    }
    // Opening says now what reading would say in the middle of a run.
    std::fs::File::open(&path).map_err(|error| of_file(&error))?;
    Ok(FoundFile { length: metadata.len(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fault(base: &Path, pattern: &str, part: &str) {
        let error = find(base, pattern).unwrap_err();
        assert!(error.to_string().contains(part), "{pattern}: {error}");
        assert!(error.help().is_some(), "{pattern}");
    }

    #[test]
    fn finds_files_in_order_and_no_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", ".c.json", "d.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            find(dir.path(), pattern).unwrap().iter().map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("*.json"), ["a.json", "b.json"]);
        assert_eq!(names("d.txt"), ["d.txt"]);
    }

    #[test]
    fn each_fault_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        check_fault(dir.path(), "none.json", "none.json");
        check_fault(dir.path(), "*.json", "no file matches");
        check_fault(dir.path(), "sub", "directory");
        check_fault(dir.path(), "gs://bucket/x", "gs://");
        check_fault(dir.path(), "[", "[");
    }
}

//! Where the checkpoints of a state folder are, for those who are given the folder and not the pipeline's file.
//!
//! A run whose checkpoints are elsewhere (`checkpoint.storage`) writes the place into the file `storage` of its folder: one line, a URL or an absolute path.
//! Without that file they are in the folder `checkpoints`.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

const FILE: &str = "storage";
const CHECKPOINTS: &str = "checkpoints";

/// The folder or URL of the store.
pub fn of(state: &Path) -> String {
    elsewhere(state).unwrap_or_else(|| state.join(CHECKPOINTS).display().to_string())
}

/// What a user names: a state folder, or else the place itself.
pub fn named(place: &str) -> String {
    let folder = Path::new(place);
    let is_state = !place.contains("://") && (folder.join(FILE).is_file() || folder.join(CHECKPOINTS).is_dir());
    if is_state { of(folder) } else { place.into() }
}

fn elsewhere(state: &Path) -> Option<String> {
    let text = std::fs::read_to_string(state.join(FILE)).ok()?;
    Some(text.trim_end().to_string()).filter(|place| !place.is_empty())
}

/// Writes down where the checkpoints of a run are that begins.
pub fn remember(state: &Path, storage: Option<&str>) -> Result<()> {
    let file = state.join(FILE);
    match storage {
        None => std::fs::remove_file(file).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }),
        Some(place) => {
            let place = if place.contains("://") { place.into() } else { std::path::absolute(place)?.display().to_string() };
            if place.contains('\n') {
                return Err(Error::new(ErrorKind::InvalidInput, "`checkpoint.storage` has more than one line"));
            }
            // Whole or not at all: a part of a path would be another place.
            let new = state.join("storage.new");
            std::fs::write(&new, format!("{place}\n"))?;
            std::fs::rename(new, file)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_knows_where_its_checkpoints_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        std::fs::create_dir_all(state.join(CHECKPOINTS)).expect("is made");
        let name = state.display().to_string();
        let inside = format!("{name}/checkpoints");
        assert_eq!((of(&state), named(&name), named(&inside)), (inside.clone(), inside.clone(), inside.clone()));
        remember(&state, Some("s3://bucket/path")).expect("is written");
        assert_eq!((of(&state), named(&name)), ("s3://bucket/path".into(), "s3://bucket/path".into()));
        remember(&state, Some("store")).expect("is written");
        assert_eq!(of(&state), std::path::absolute("store").expect("is a path").display().to_string());
        for _ in 0..2 {
            remember(&state, None).expect("is removed");
            assert_eq!(of(&state), inside);
        }
        assert_eq!(named("s3://bucket/path"), "s3://bucket/path");
    }
}

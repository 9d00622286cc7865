//! Files that appear whole or not at all, and folders that one process changes at a time.

use crate::error::RegistryError;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file beside its place and moves it there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut making = path.as_os_str().to_owned();
    making.push(format!(".making-{}-{number}", std::process::id()));
    let making = PathBuf::from(making);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        let mut file = File::create(&making)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&making, path)
    });
    written.map_err(|error| {
        // Gone already if it was moved.
        let _ = fs::remove_file(&making);
        RegistryError::disk("write", path, &error)
    })
}

/// Reads a file of at most `most` bytes; `None` where there is none.
pub(crate) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, RegistryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RegistryError::disk("read", path, &error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| RegistryError::disk("read", path, &error))?;
    if bytes.len() as u64 > most {
        return Err(RegistryError::external(format!("{} has more than {most} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// Holds a folder against other processes until it is dropped.
pub(crate) fn lock(folder: &Path) -> Result<File, RegistryError> {
    let path = folder.join("lock");
    let locked = fs::create_dir_all(folder).and_then(|()| {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|error| RegistryError::disk("lock", &path, &error))
}

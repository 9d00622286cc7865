//! The calls by which exactly-once files come into being, one function a call, so that a test can end the process between any two.
//!
//! Whatever is durable after a call is said with it: contents after [`sync`], names after [`sync_directory`].

use crate::ConnectError;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Read at once.
const COPY_BYTES: usize = 1 << 18;

/// Creates a file that is not there yet.
pub fn create(path: &Path) -> Result<File, ConnectError> {
    at(path)
        .and_then(|()| File::create_new(path))
        .inspect(|_| tests_note(path, Note::Created))
        .map_err(|error| ConnectError::of_file("write", path, &error))
}

/// Creates a directory, and those above it, their names durable.
pub fn create_directory(path: &Path) -> Result<(), ConnectError> {
    let missing = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).count();
    let created = at(path).and_then(|()| std::fs::create_dir_all(path));
    created.map_err(|error| ConnectError::of_file("create the directory", path, &error))?;
    path.ancestors().skip(1).take(missing).filter(|above| !above.as_os_str().is_empty()).try_for_each(sync_directory)
}

/// Appends; the caller keeps the file.
pub fn write(file: &mut File, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A process may die with half of the bytes written.
    at(path).inspect_err(|_| drop(file.write_all(&bytes[..bytes.len() / 2])))?;
    file.write_all(bytes)
}

/// What helps where a hidden file is not what it was.
pub const RESTORE: &str = "restore the file from a copy of the disk, or begin anew with an empty state";

/// A file as far as it counts.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that count.
    pub length: u64,
    /// xxh3-64 of them, where it is known.
    pub hash: Option<u64>,
}

impl Committed {
    /// Appends it to another file, and to the hash of that one.
    pub fn append_to(&self, file: &mut File, path: &Path, hash: &mut Xxh3) -> Result<(), ConnectError> {
        at(path).map_err(|error| ConnectError::of_file("copy", &self.path, &error))?;
        self.read(|bytes| {
            hash.update(bytes);
            file.write_all(bytes)
        })
    }

    /// Fails if it is not as it was written.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.hash.map_or(Ok(()), |_| self.read(|_| Ok(())))
    }

    /// Shows all that counts, piece by piece; fails if there is less, or something else.
    fn read(&self, mut show: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), ConnectError> {
        let failed = |error: Error| ConnectError::of_file("copy", &self.path, &error);
        let mut input = File::open(&self.path).map_err(failed)?.take(self.length);
        let (mut buffer, mut read, mut hash) = (vec![0; COPY_BYTES], 0, Xxh3::new());
        loop {
            match input.read(&mut buffer).map_err(failed)? {
                0 => break,
                length => {
                    hash.update(&buffer[..length]);
                    show(&buffer[..length]).map_err(failed)?;
                    read += length as u64;
                }
            }
        }
        let name = self.path.display();
        match self.hash {
            _ if read < self.length => {
                Err(ConnectError::user(format!("{name} has only {read} of the {} bytes that were committed", self.length), RESTORE))
            }
            Some(written) if written != hash.digest() => {
                Err(ConnectError::user(format!("{name} is damaged: its bytes are not those that were written"), RESTORE))
            }
            _ => Ok(()),
        }
    }
}

/// Names in a folder, sorted; none where it is not there.
pub fn names_in(folder: &Path) -> Result<Vec<String>, ConnectError> {
    let listed = match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>, Error>>(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut names = listed.map_err(|error| ConnectError::of_file("list", folder, &error))?;
    names.sort();
    Ok(names)
}

/// Makes the contents durable.
pub fn sync(file: &File, path: &Path) -> std::io::Result<()> {
    at(path)?;
    file.sync_all()?;
    tests_note(path, Note::Synced(file.metadata()?.len()));
    Ok(())
}

/// Makes names durable.
pub fn sync_directory(path: &Path) -> Result<(), ConnectError> {
    let synced = at(path).and_then(|()| File::open(path)).and_then(|directory| directory.sync_all());
    synced.inspect(|()| tests_note(path, Note::NamesSynced)).map_err(|error| ConnectError::of_file("sync", path, &error))
}

/// Gives a file another name instead of its own; what has that name is replaced.
pub fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    at(to)?;
    std::fs::rename(from, to)
}

/// Gives a file another name beside its own, which is not taken.
pub fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    at(to)?;
    std::fs::hard_link(from, to).inspect(|()| tests_note(to, Note::Created))
}

/// Removes a file, which may be gone.
pub fn remove(path: &Path) -> Result<(), ConnectError> {
    match at(path).and_then(|()| std::fs::remove_file(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(ConnectError::of_file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// What is known of a file; `None` if it is not there.
pub fn look(path: &Path) -> Result<Option<Metadata>, ConnectError> {
    match at(path).and_then(|()| std::fs::metadata(path)) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConnectError::of_file("look at", path, &error)),
    }
}

/// What a test takes note of.
#[cfg_attr(not(test), allow(dead_code, reason = "only tests read it"))]
enum Note {
    Created,
    Synced(u64),
    NamesSynced,
}

#[cfg(not(test))]
fn at(_path: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(not(test))]
fn tests_note(_path: &Path, _note: Note) {}

#[cfg(test)]
use fates::{at, tests_note};

/// What happens to processes that work in the folder of a test.
#[cfg(test)]
pub mod fates {
    use super::*;
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;
    use std::sync::{Condvar, Mutex};

    thread_local! {
        /// The process that a thread stands for.
        pub static PROCESS: Cell<u64> = const { Cell::new(0) };
    }

    /// A folder and what happens in it.
    #[derive(Default)]
    struct World {
        /// By process: the calls that it still makes, and whether it is stopped then instead of dead.
        left: BTreeMap<u64, (usize, bool)>,
        /// Calls of each process.
        calls: BTreeMap<u64, usize>,
        stopped: BTreeSet<u64>,
        /// By file: bytes that are durable.
        synced: BTreeMap<PathBuf, u64>,
        /// Names that are not durable.
        names: BTreeSet<PathBuf>,
    }

    static WORLDS: Mutex<BTreeMap<PathBuf, World>> = Mutex::new(BTreeMap::new());
    static CHANGED: Condvar = Condvar::new();

    fn in_world<T>(path: &Path, act: impl FnOnce(&mut World) -> T) -> Option<T> {
        let mut worlds = WORLDS.lock().unwrap();
        worlds.iter_mut().find(|(folder, _)| path.starts_with(folder)).map(|(_, world)| act(world))
    }

    /// A process comes to a call.
    pub(super) fn at(path: &Path) -> Result<(), Error> {
        let process = PROCESS.get();
        let fate = in_world(path, |world| {
            *world.calls.entry(process).or_default() += 1;
            match world.left.get_mut(&process) {
                Some((0, true)) => {
                    world.stopped.insert(process);
                    CHANGED.notify_all();
                    Some(true)
                }
                Some((0, false)) => Some(false),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        });
        match fate.flatten() {
            Some(true) => {
                let worlds = WORLDS.lock().unwrap();
                let stopped = |worlds: &mut BTreeMap<PathBuf, World>| worlds.values().any(|world| world.stopped.contains(&process));
                drop(CHANGED.wait_while(worlds, stopped).unwrap());
                Ok(())
            }
            Some(false) => Err(Error::other("the process has died")),
            None => Ok(()),
        }
    }

    pub(super) fn tests_note(path: &Path, note: Note) {
        in_world(path, |world| match note {
            Note::Created => drop(world.names.insert(path.into())),
            Note::Synced(length) => drop(world.synced.insert(path.into(), length)),
            Note::NamesSynced => world.names.retain(|name| name.parent() != Some(path)),
        });
    }

    /// A new world.
    pub fn begin(folder: &Path) {
        WORLDS.lock().unwrap().insert(folder.into(), World::default());
    }

    /// A process makes so many calls and then dies, or is stopped.
    pub fn after(folder: &Path, process: u64, calls: usize, stops: bool) {
        in_world(folder, |world| world.left.insert(process, (calls, stops)));
    }

    /// Calls that a process has made.
    pub fn calls(folder: &Path, process: u64) -> usize {
        in_world(folder, |world| world.calls.get(&process).copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Waits until a process is stopped, or `ended` says that it never will be.
    pub fn wait_for_stop(process: u64, ended: impl Fn() -> bool) -> bool {
        let mut worlds = WORLDS.lock().unwrap();
        loop {
            if worlds.values().any(|world| world.stopped.contains(&process)) {
                return true;
            }
            if ended() {
                return false;
            }
            worlds = CHANGED.wait_timeout(worlds, std::time::Duration::from_millis(5)).unwrap().0;
        }
    }

    /// A stopped process goes on.
    pub fn go_on(folder: &Path, process: u64) {
        in_world(folder, |world| {
            world.left.remove(&process);
            world.stopped.remove(&process);
        });
        CHANGED.notify_all();
    }

    /// The power fails: contents and names that are not durable are lost.
    pub fn lose_power(folder: &Path) {
        in_world(folder, |world| {
            for name in std::mem::take(&mut world.names) {
                let _ = std::fs::remove_file(name);
            }
            for (path, length) in &world.synced {
                if let Ok(file) = File::options().write(true).open(path)
                    && file.metadata().unwrap().len() > *length
                {
                    file.set_len(*length).unwrap();
                }
            }
        });
    }
}

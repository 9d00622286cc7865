//! Final names, and that only whole files get one.
//!
//! ```text
//!  while writing      DIR/.<name>.tmp-<random>         hidden: no glob of ours finds it
//!  bounded run        PATH-SSSSS-of-NNNNN              as Beam
//!  … appending        PATH-RRRRR-SSSSS-of-NNNNN        R: the first run that has no file of this shard yet
//!  unbounded run      PATH-<stamp>-PPPPP               stamp: start of the window, or the time when the part was begun
//!  … several shards   PATH-<stamp>-PPPPP-SSSSS
//! ```
//!
//! A pipe or a device is written to as it is. A stamp is `20260131T120000Z`. What a disposition finds of earlier runs are the files of these forms, and no others.

use crate::ConnectError;
use pelton_core::Instant;
use std::path::{Path, PathBuf};

/// What happens to files of earlier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// They are removed when the new ones are published.
    Truncate,
    /// They stay, and the new ones get other names.
    Append,
    /// They are an error, before anything is written.
    FailIfExists,
}

/// The names of one shard.
#[derive(Clone, Debug)]
pub struct Naming {
    /// `path` of the config.
    pub path: PathBuf,
    /// Number of the shard.
    pub shard: usize,
    /// Shards that there are.
    pub shards: usize,
}

impl Naming {
    /// The name of this shard of a bounded run; `run` is given when appending.
    pub fn shard_name(&self, run: Option<u32>) -> PathBuf {
        let run = run.map_or(String::new(), |run| format!("-{run:05}"));
        self.with_suffix(&format!("{run}-{:05}-of-{:05}", self.shard, self.shards))
    }

    /// The name of a part of an unbounded run.
    pub fn part_name(&self, stamp: Instant, part: u32) -> PathBuf {
        let shard = if self.shards > 1 { format!("-{:05}", self.shard) } else { String::new() };
        self.with_suffix(&format!("-{}-{part:05}{shard}", compact(stamp)))
    }

    /// The path is a pipe or a device, such as `/dev/stdout`: there is nothing to publish, rows go into it as they come.
    pub fn is_stream(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
    }

    /// The hidden name of a file that is being written.
    pub fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        // Each state of the standard library's hasher has keys of its own, which is all the randomness that a name needs.
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        self.path.with_file_name(format!(".{name}.tmp-{random:016x}"))
    }

    /// Files of earlier runs. Blocks.
    pub fn earlier(&self) -> Result<Vec<PathBuf>, ConnectError> {
        let directory = self.directory();
        let prefix = format!("{}-", self.path.file_name().unwrap_or_default().to_string_lossy());
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ConnectError::of_file("list", directory, &error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| ConnectError::of_file("list", directory, &error))?;
            let name = entry.file_name();
            if name.to_string_lossy().strip_prefix(&prefix).is_some_and(is_ours) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where the files lie.
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(suffix);
        self.path.with_file_name(name)
    }
}

/// Gives a finished file its name, so that it is there after a crash too. Blocks.
pub fn rename(temporary: &Path, name: &Path) -> Result<(), ConnectError> {
    std::fs::rename(temporary, name).map_err(|error| ConnectError::of_file("publish", name, &error))?;
    if let Some(directory) = name.parent() {
        let synced = std::fs::File::open(if directory == Path::new("") { Path::new(".") } else { directory })
            .and_then(|directory| directory.sync_all());
        synced.map_err(|error| ConnectError::of_file("sync", directory, &error))?;
    }
    Ok(())
}

/// Whether what follows `PATH-` has one of the forms above.
fn is_ours(suffix: &str) -> bool {
    let number = |part: &str| part.len() >= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    match suffix.split('-').collect::<Vec<_>>()[..] {
        [shard, "of", shards] => number(shard) && number(shards),
        [run, shard, "of", shards] => number(run) && number(shard) && number(shards),
        [stamp, part] => is_stamp(stamp) && number(part),
        [stamp, part, shard] => is_stamp(stamp) && number(part) && number(shard),
        _ => false,
    }
}

fn is_stamp(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

/// `20260131T120000Z`: sorts as text, and has no colon, which some file systems refuse.
fn compact(instant: Instant) -> String {
    let text = instant.to_string();
    let seconds = text.split('.').next().unwrap_or(&text).trim_end_matches('Z');
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let naming = Naming { path: "out/x.json".into(), shard: 1, shards: 3 };
        assert_eq!(naming.shard_name(None), Path::new("out/x.json-00001-of-00003"));
        assert_eq!(naming.shard_name(Some(2)), Path::new("out/x.json-00002-00001-of-00003"));
        let stamp = Instant::parse_rfc3339("2026-01-31T12:00:00.5Z").unwrap();
        assert_eq!(naming.part_name(stamp, 4), Path::new("out/x.json-20260131T120000Z-00004-00001"));
        let hidden = naming.temporary();
        assert!(hidden.file_name().unwrap().to_str().unwrap().starts_with(".x.json.tmp-"));
    }

    #[test]
    fn only_our_own_files_are_earlier_ones() {
        for (suffix, ours) in [
            ("00000-of-00001", true),
            ("00001-00000-of-00001", true),
            ("20260131T120000Z-00000", true),
            ("20260131T120000Z-00000-00002", true),
            ("backup", false),
            ("0-of-1", false),
            ("2026-00001", false),
            ("errors.json-00000-of-00001", false),
        ] {
            assert_eq!(is_ours(suffix), ours, "{suffix}");
        }
    }
}

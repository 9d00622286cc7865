//! The audit log: who has asked for what, and what came of it.
//!
//! `audit.jsonl` in the data folder, one JSON object a line, only ever appended to and synced before the host goes on. A change leaves two
//! lines with the same `id`: `begun` before anything is done, and `done` with its result; so one that a crash cut off is seen too. What was
//! refused for want of a right leaves one line.

use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One line.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// When, RFC 3339.
    pub at: String,
    /// The same for all lines of one change.
    pub id: &'a str,
    /// `begun` or `done`.
    pub phase: &'static str,
    /// The name of the token, or `uid N` on the Unix socket.
    pub who: &'a str,
    /// The rights that go with it.
    pub role: &'a str,
    /// What is done, such as `deploy`.
    pub action: &'a str,
    /// With which pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<&'a str>,
    /// Which version of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Digests of the plugins that it is about.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub digests: &'a [String],
    /// `ok`, `taken back`, `refused` or `failed`; only of what is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
}

/// See the module.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: Mutex<File>,
    /// Tells changes of this life of the host apart.
    life: String,
    next: AtomicU64,
}

impl Audit {
    /// Opens it, or makes one. A line that a crash has cut off is ended.
    pub fn open(path: &Path, life: String) -> std::io::Result<Audit> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        if file.metadata()?.len() > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Audit { path: path.into(), file: Mutex::new(file), life, next: AtomicU64::new(1) })
    }

    /// A name for a change.
    pub fn id(&self) -> String {
        format!("{}-{}", self.life, self.next.fetch_add(1, Relaxed))
    }

    /// Appends a line; it is on the disk when this returns.
    pub fn write(&self, entry: &Entry<'_>) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.file.lock().expect("no holder of this lock panics");
        file.write_all(&line)?;
        file.sync_data()
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> std::io::Result<Vec<serde_json::Value>> {
        /// So much of the file is looked at.
        const MOST: u64 = 4 << 20;
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        // What a crash has cut off is no JSON.
        let entries: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(entries[entries.len().saturating_sub(lines)..].to_vec())
    }
}

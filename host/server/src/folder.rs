//! The data folder of a host.
//!
//! ```text
//! lock                         held by the host that runs
//! pelton.sock                  its API
//! audit.jsonl                  see `audit`
//! plugins/sha256-….wasm        components, by their digest; with .sig behind it, who has signed it
//! trust/                       which versions of plugins were had, see `trust`
//! pipelines/NAME/desired.json  what is to run
//! pipelines/NAME/versions/N.json   all that was ever deployed under this name
//! pipelines/NAME/state/        its checkpoints
//! pipelines/NAME/savepoints/   copies of them
//! pipelines/NAME/log.jsonl     what it logs
//! ```
//!
//! Invariant: every file is whole at any moment, and what this module says is written is on the disk.

use crate::ServerError;
use crate::durable;
use crate::names::is_name;
use crate::refusal::{Refusal, Why};
use crate::versions::Asked;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A pipeline as it is sent to a host: everything that its graph depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The pipeline file, as the user named it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Texts of the files that it includes and of keys that it trusts, by the path as it is meant in the file.
    #[serde(default)]
    pub includes: BTreeMap<String, String>,
    /// Variables of its template.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Digests of its plugins, by the path as it is meant in the file.
    #[serde(default)]
    pub plugins: BTreeMap<String, String>,
    /// Relative paths in configs start here; without it, in the folder that the host was started in.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Tasks side by side; without it, as the file says, else one a core.
    #[serde(default)]
    pub parallelism: Option<usize>,
    /// Uids whose state may be dropped.
    #[serde(default)]
    pub drop_state: Vec<String>,
    /// A savepoint that a new pipeline begins with.
    #[serde(default)]
    pub from: Option<String>,
    /// Transforms that swaps have made other than the file says; plugins are digests.
    #[serde(default)]
    pub changes: Vec<Asked>,
}

impl Deployment {
    /// With more changes on top.
    pub fn changed(&self, changes: &[Asked]) -> Deployment {
        let mut all = self.changes.clone();
        for change in changes {
            match all.iter_mut().find(|one| one.transform == change.transform) {
                Some(one) => {
                    one.plugin = change.plugin.clone().or(one.plugin.take());
                    one.config = change.config.clone().or(one.config.take());
                }
                None => all.push(change.clone()),
            }
        }
        Deployment { changes: all, ..self.clone() }
    }

    /// Digests of all plugins that it needs.
    pub fn digests(&self) -> impl Iterator<Item = &String> {
        self.plugins.values().chain(self.changes.iter().filter_map(|change| change.plugin.as_ref()))
    }
}

/// A deployment that was accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub number: u64,
    /// When, RFC 3339.
    pub at: String,
    /// `datetime` in templates, microseconds.
    pub now: i64,
    /// Who has deployed it.
    pub who: String,
    /// Why, if they said so.
    pub note: Option<String>,
    /// The version that it brought back.
    pub rollback_of: Option<u64>,
    /// Why it did not take over, if it did not.
    #[serde(default)]
    pub refused: Option<String>,
    /// What it is.
    pub deployment: Deployment,
}

/// What is to be with a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// It is to run, also after a start of the host.
    Running,
    /// It stands still until somebody says otherwise.
    Paused,
    /// Somebody has stopped it.
    Stopped,
    /// It is to come to its end: all windows fire.
    Drained,
}

/// What is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Whether.
    pub state: Wanted,
    /// Which version.
    pub version: u64,
    /// What goes on if this version does not start; `None` once it has started.
    pub before: Option<Before>,
    /// The version that is taking over while this one runs: after a crash it is looked which of them runs.
    #[serde(default)]
    pub taking_over: Option<u64>,
}

impl Desired {
    /// That a version is to be so, and that is all.
    pub fn new(state: Wanted, version: u64) -> Desired {
        Desired { state, version, before: None, taking_over: None }
    }
}

/// What was to be with a pipeline before a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Which version.
    pub version: u64,
    /// Whether it was to run.
    pub state: Wanted,
}

/// See the module.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Unlocked by the system when the process is gone.
    _lock: File,
}

impl Folder {
    /// Opens the folder, or makes it.
    pub fn open(root: &Path) -> Result<Folder, ServerError> {
        let cannot = |doing: &str, path: &Path, error: &std::io::Error| {
            ServerError::user(format!(
                "cannot {doing} {}: {error}\n  next: name a folder with --data that the user who runs pelton may write",
                path.display()
            ))
        };
        let root = std::path::absolute(root).map_err(|error| cannot("use", root, &error))?;
        for inner in ["", "plugins", "pipelines"] {
            let path = root.join(inner);
            make_folder(&path).map_err(|error| cannot("make", &path, &error))?;
        }
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| cannot("open", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { root, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => {
                let root = root.display();
                Err(ServerError::user(format!(
                    "another host has the data folder {root}\n  next: stop it, or name another folder with --data"
                )))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The components.
    pub fn components(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// What is remembered of plugins.
    pub fn trust(&self) -> PathBuf {
        self.root.join("trust")
    }

    /// What belongs to a pipeline.
    pub fn pipeline(&self, name: &str) -> PathBuf {
        self.root.join("pipelines").join(name)
    }

    /// Names of all pipelines.
    pub fn pipelines(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pipelines")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_name(name) && self.pipeline(name).join("desired.json").exists()).collect()
    }

    /// Makes the folder of a pipeline, if there is none.
    pub fn make_pipeline(&self, name: &str) -> Result<(), Refusal> {
        let path = self.pipeline(name).join("versions");
        let made = make_folder(&path).and_then(|()| durable::sync_folder(&self.root.join("pipelines")));
        made.and_then(|()| durable::sync_folder(&self.pipeline(name))).map_err(|error| Refusal::disk("make", &path, &error))
    }

    /// Removes a pipeline with its state and its log. One that is half removed is not seen.
    pub fn remove_pipeline(&self, name: &str) -> Result<(), Refusal> {
        let path = self.pipeline(name);
        let removed = std::fs::remove_file(path.join("desired.json")).and_then(|()| std::fs::remove_dir_all(&path));
        removed.map_err(|error| Refusal::disk("remove", &path, &error))
    }

    /// Numbers of all versions, ascending.
    pub fn versions(&self, name: &str) -> Vec<u64> {
        let entries = std::fs::read_dir(self.pipeline(name).join("versions")).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A version.
    pub fn version(&self, name: &str, number: u64) -> Result<Version, Refusal> {
        let path = self.version_path(name, number);
        if !path.exists() {
            return Err(Refusal::new(Why::Absent, format!("`{name}` has no version {number}; `pelton history {name}` lists them")));
        }
        read(&path)
    }

    /// Keeps a version for good.
    pub fn keep_version(&self, name: &str, version: &Version) -> Result<(), Refusal> {
        write(&self.version_path(name, version.number), version)
    }

    fn version_path(&self, name: &str, number: u64) -> PathBuf {
        self.pipeline(name).join("versions").join(format!("{number}.json"))
    }

    /// What is to be with a pipeline.
    pub fn desired(&self, name: &str) -> Result<Desired, Refusal> {
        read(&self.pipeline(name).join("desired.json"))
    }

    /// Writes that down.
    pub fn keep_desired(&self, name: &str, desired: &Desired) -> Result<(), Refusal> {
        write(&self.pipeline(name).join("desired.json"), desired)
    }
}

/// Whether this is the folder of one pipeline of a host.
pub fn is_a_pipelines(folder: &Path) -> bool {
    ["desired.json", "versions"].iter().all(|inner| folder.join(inner).exists())
}

/// For its owner only.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Refusal> {
    let bytes = std::fs::read(path).map_err(|error| Refusal::disk("read", path, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Why::Broken, format!("{} is damaged: {error}; bring it back from a copy", path.display())))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec_pretty(value).expect("plain data is JSON");
    durable::write_whole(path, &bytes).map_err(|error| Refusal::disk("write", path, &error))
}

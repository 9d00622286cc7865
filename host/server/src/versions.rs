//! What runs: a pipeline file, and what swaps have made of it since ([`pelton_core::swap`]).
//!
//! The file is read once, when the run begins; it and its plugins are the *base*, whatever becomes of the files on disk. Components of other versions lie in
//! a folder by their digests.

use crate::{ServerError, durable};
use bytes::Bytes;
use pelton_core::swap::{Change, Made, Replacement, Version, Versions, back};
use pelton_pipeline::graph::{AggregateFunction, Node};
use pelton_pipeline::{Diagnostic, Graph, PluginInfo, Settings, Transform};
use pelton_plugin::Plugin;
use pelton_runtime::swap::Wanted;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where plugins come from.
pub trait Plugins: PluginInfo + Send + Sync {
    /// Those of a checked graph, in the order of its providers.
    fn of(&self, graph: &Graph) -> Result<Vec<Arc<Plugin>>, String>;
    /// The bytes of one that is loaded.
    fn bytes_of(&self, digest: &str) -> Option<Bytes>;
}

/// Fetches a component that lies with the checkpoints.
pub type Fetch<'a> = &'a (dyn Fn(&str) -> Result<Option<Bytes>, String> + Sync);

/// A pipeline file as it was when the run began.
pub struct Base {
    settings: Settings,
    plugins: Box<dyn Plugins>,
    /// Where components of other versions are put.
    folder: PathBuf,
    /// What the file says of each transform, and of each aggregate of a plugin (`Transform.column`).
    pub file: BTreeMap<String, Version>,
    /// By transform: its aggregates of plugins.
    aggregates: BTreeMap<String, Vec<String>>,
}

/// A pipeline to run.
pub struct Loaded {
    /// Checked.
    pub graph: Graph,
    /// By provider.
    pub plugins: Vec<Arc<Plugin>>,
}

/// What somebody wants to be different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Full name of the transform; of one with several aggregates of plugins `Transform.column`.
    pub transform: String,
    /// A component's file, or the digest of one that ran before.
    #[serde(default)]
    pub plugin: Option<String>,
    /// Its config, in place of the one that it has.
    #[serde(default)]
    pub config: Option<Value>,
}

/// Why a pipeline cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The file is wrong: all that is, at once.
    File(Vec<Diagnostic>),
    /// Something else.
    Other(ServerError),
}

impl From<ServerError> for LoadError {
    fn from(error: ServerError) -> LoadError {
        LoadError::Other(error)
    }
}

impl LoadError {
    /// All of it as one text, which goes on from what somebody else begins.
    pub fn text(&self) -> String {
        match self {
            LoadError::File(findings) => {
                let text = pelton_pipeline::render(findings);
                text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_string()
            }
            LoadError::Other(error) => error.to_string(),
        }
    }

    /// The same in the words of whoever gave these files: they know nothing of the copies.
    fn naming(mut self, given: &[Given<'_>]) -> LoadError {
        let name = |text: &mut String| {
            for Given { file, copy, .. } in given {
                *text = text.replace(&copy.display().to_string(), file);
            }
        };
        match &mut self {
            LoadError::File(findings) => findings.iter_mut().for_each(|finding| name(&mut finding.message)),
            LoadError::Other(ServerError::User(text)) => name(text),
        }
        self
    }
}

/// A component that somebody has named by its file.
struct Given<'a> {
    file: &'a str,
    /// In the folder.
    copy: PathBuf,
    /// Nobody knew it before.
    is_new: bool,
}

impl Base {
    /// Reads and checks the file.
    pub fn new(settings: Settings, plugins: Box<dyn Plugins>) -> Result<(Base, Loaded), LoadError> {
        let mut base = Base { settings, plugins, folder: PathBuf::new(), file: BTreeMap::new(), aggregates: BTreeMap::new() };
        let loaded = base.load_with(Vec::new())?;
        base.file = versions_of(&loaded);
        for node in &loaded.graph.nodes {
            let of_plugins = aggregates_of(node).map(|(name, ..)| name);
            let nameable = of_plugins.filter(|name| !loaded.graph.nodes.iter().any(|node| node.name == *name)).collect();
            base.aggregates.insert(node.name.clone(), nameable);
        }
        Ok((base, loaded))
    }

    /// Puts components of other versions into this folder.
    pub fn in_folder(self, folder: PathBuf) -> Base {
        Base { folder, ..self }
    }

    /// The pipeline with these versions on top of the file.
    pub fn load(&self, versions: &Versions, fetch: Fetch<'_>) -> Result<Loaded, LoadError> {
        let change = |one: &Replacement| self.change(&one.transform, &one.base, &one.version, fetch);
        self.load_with(versions.replaced.iter().map(change).collect::<Result<_, _>>()?)
    }

    /// The name by which swaps know what is to be changed: a transform with one aggregate of a plugin stands for that.
    pub fn name_of(&self, transform: &str) -> Result<String, ServerError> {
        match self.aggregates.get(transform).map(Vec::as_slice) {
            None | Some([]) => Ok(transform.into()),
            Some([one]) => Ok(one.clone()),
            Some(several) => {
                let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                Err(ServerError::user(format!("`{transform}` has several aggregates of plugins; name one of {}", names.join(", "))))
            }
        }
    }

    /// What is to be swapped, from what was asked.
    pub fn wanted(&self, asked: &[Asked], versions: &Versions, fetch: Fetch<'_>) -> Result<Wanted, LoadError> {
        let named = |asked: &Asked| Ok(Asked { transform: self.name_of(&asked.transform)?, ..asked.clone() });
        let asked: Vec<Asked> = asked.iter().map(named).collect::<Result<_, ServerError>>()?;
        let mut given = Vec::new();
        let loaded = self.load_asked(&asked, versions, fetch, &mut given).map_err(|error| {
            // It is no plugin of this pipeline, so it does not stay.
            for copy in given.iter().filter(|given| given.is_new).map(|given| &given.copy) {
                let _ = std::fs::remove_file(copy);
                let _ = std::fs::remove_file(signatures(copy));
            }
            error.naming(&given)
        })?;
        let now = versions_of(&loaded);
        let change = |asked: &Asked| {
            let transform = asked.transform.clone();
            let (base, to) = (self.file[&transform].clone(), now[&transform].clone());
            Change { from: versions.of(&transform, &base), transform, base, to }
        };
        let changes: Vec<Change> = asked.iter().map(change).filter(|change| change.from != change.to).collect();
        let components = self.components(&changes, fetch)?;
        Ok(Wanted {
            graph: loaded.graph,
            plugins: loaded.plugins,
            changes,
            components,
            dry_run: false,
            irreversible: false,
            experiment: None,
        })
    }

    /// The pipeline with more changes. What was named by files is told, also if it cannot be loaded.
    fn load_asked<'a>(
        &self,
        asked: &'a [Asked],
        versions: &Versions,
        fetch: Fetch<'_>,
        given: &mut Vec<Given<'a>>,
    ) -> Result<Loaded, LoadError> {
        let mut wanted: BTreeMap<&str, Version> =
            versions.replaced.iter().map(|one| (one.transform.as_str(), one.version.clone())).collect();
        for Asked { transform, plugin, config } in asked {
            let base = self.file.get(transform).ok_or_else(|| self.unknown(transform))?;
            let version = wanted.entry(transform).or_insert_with(|| base.clone());
            if let Some(file) = plugin.as_ref().filter(|plugin| !is_digest(plugin)) {
                let read = std::fs::read(file).map_err(|error| ServerError::user(format!("cannot read the component {file}: {error}")))?;
                let digest = Plugin::digest_of(&read);
                let copy = self.path(&digest);
                given.push(Given { file, is_new: self.kept(&digest).is_none(), copy });
                version.plugin = Some(self.keep_file(file, digest, &read)?);
            } else if let Some(digest) = plugin {
                version.plugin = Some(self.keep(digest, fetch)?);
            }
            if let Some(config) = config {
                version.config = config.clone();
            }
        }
        let change = |(transform, version): (&&str, &Version)| self.change(transform, &self.file[*transform], version, fetch);
        self.load_with(wanted.iter().map(change).collect::<Result<_, _>>()?)
    }

    /// What takes a transform back to what it was before it became what it is.
    pub fn way_back(&self, transform: &str, versions: &Versions, made: &[Made]) -> Result<Asked, ServerError> {
        let transform = &*self.name_of(transform)?;
        let base = self.file.get(transform).ok_or_else(|| self.unknown(transform))?;
        let now = versions.of(transform, base);
        let change = back(made.iter(), transform, &now)
            .ok_or_else(|| ServerError::user(format!("no swap has made `{transform}` what it is, so there is nothing to go back to")))?;
        Ok(Asked::to(transform, &change.from))
    }

    fn load_with(&self, changes: Vec<pelton_pipeline::Change>) -> Result<Loaded, LoadError> {
        let mut all = self.settings.changes.clone();
        for change in changes {
            match all.iter_mut().find(|one| one.transform == change.transform) {
                Some(one) => *one = change.over(one.clone()),
                None => all.push(change),
            }
        }
        let settings = Settings { changes: all, ..self.settings.clone() };
        let graph = pelton_pipeline::load(&settings, &pelton_connect::catalog(), self.plugins.as_ref()).map_err(LoadError::File)?;
        let plugins = self.plugins.of(&graph).map_err(ServerError::user)?;
        Ok(Loaded { graph, plugins })
    }

    fn change(&self, transform: &str, base: &Version, version: &Version, fetch: Fetch<'_>) -> Result<pelton_pipeline::Change, ServerError> {
        let plugin = match version.plugin.as_ref().filter(|_| version.plugin != base.plugin) {
            Some(digest) => Some(self.path(&self.keep(digest, fetch)?)),
            None => None,
        };
        let config = (version.config != base.config && !version.config.is_null()).then(|| version.config.clone());
        Ok(pelton_pipeline::Change { transform: transform.into(), plugin, config })
    }

    /// Puts a component that ran before into the folder, from the checkpoints.
    fn keep(&self, digest: &str, fetch: Fetch<'_>) -> Result<String, ServerError> {
        if self.kept(digest).is_some() {
            return Ok(digest.into());
        }
        let fetched = fetch(digest).map_err(ServerError::user)?;
        let missing = || format!("no component {digest} lies with the checkpoints; name its file");
        let bytes = fetched.or_else(|| self.plugins.bytes_of(digest)).ok_or_else(|| ServerError::user(missing()))?;
        let found = Plugin::digest_of(&bytes);
        if digest != found {
            return Err(ServerError::user(format!("the component that was kept as {digest} is damaged: its digest is {found}")));
        }
        put(&self.path(digest), &bytes)?;
        Ok(found)
    }

    /// Puts the component of a file into the folder, and who signed it, as far as anybody did.
    fn keep_file(&self, file: &str, digest: String, bytes: &[u8]) -> Result<String, ServerError> {
        let path = self.path(&digest);
        if self.kept(&digest).is_none() {
            put(&path, bytes)?;
        }
        if let Ok(signed) = std::fs::read(signatures(Path::new(file))) {
            put(&signatures(&path), &signed)?;
        }
        Ok(digest)
    }

    /// A component of the folder. One that is not what its name says was damaged, and is as good as none.
    fn kept(&self, digest: &str) -> Option<Bytes> {
        let bytes = std::fs::read(self.path(digest)).ok()?;
        (Plugin::digest_of(&bytes) == digest).then(|| bytes.into())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.replace(':', "-")))
    }

    /// The components of both sides of changes, as far as they can be found: the way back needs them too.
    fn components(&self, changes: &[Change], fetch: Fetch<'_>) -> Result<Vec<(String, Bytes)>, ServerError> {
        let mut found: BTreeMap<String, Bytes> = BTreeMap::new();
        for digest in changes.iter().flat_map(|change| [&change.to.plugin, &change.from.plugin]).flatten() {
            let bytes = match self.kept(digest).or_else(|| self.plugins.bytes_of(digest)) {
                Some(bytes) => Some(bytes),
                None => fetch(digest).map_err(ServerError::user)?,
            };
            found.extend(bytes.map(|bytes| (digest.clone(), bytes)));
        }
        Ok(found.into_iter().collect())
    }

    fn unknown(&self, transform: &str) -> ServerError {
        let near = pelton_core::catalog::nearest(transform, self.file.keys().map(String::as_str));
        let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        ServerError::user(format!("the pipeline has no transform `{transform}`{help}"))
    }
}

impl Asked {
    /// That a transform becomes this.
    pub fn to(transform: &str, version: &Version) -> Asked {
        let config = (!version.config.is_null()).then(|| version.config.clone());
        Asked { transform: transform.into(), plugin: version.plugin.clone(), config }
    }
}

/// The aggregates of plugins in a transform: how swaps name each, its provider and its config.
pub fn aggregates_of(node: &Node) -> impl Iterator<Item = (String, usize, &Value)> {
    let combine = match &node.transform {
        Transform::Combine { combine, .. } | Transform::RollUp { combine, .. } => combine.as_slice(),
        _ => &[],
    };
    combine.iter().filter_map(|aggregate| match &aggregate.function {
        AggregateFunction::Plugin { provider, config, .. } => Some((format!("{}.{}", node.name, aggregate.name), *provider, config)),
        _ => None,
    })
}

/// What each transform of a pipeline is made of, and each aggregate of a plugin.
fn versions_of(loaded: &Loaded) -> BTreeMap<String, Version> {
    let digest = |provider: usize| Some(loaded.plugins[provider].digest().to_string());
    let aggregates = loaded.graph.nodes.iter().flat_map(aggregates_of);
    let aggregates = aggregates.map(|(name, provider, config)| (name, Version { plugin: digest(provider), config: config.clone() }));
    let version = |node: &Node| {
        let plugin = match &node.transform {
            Transform::Plugin { provider, .. } => digest(*provider),
            _ => None,
        };
        (node.name.clone(), Version { plugin, config: node.written.clone() })
    };
    aggregates.chain(loaded.graph.nodes.iter().map(version)).collect()
}

/// Whether a component is named by its digest.
fn is_digest(plugin: &str) -> bool {
    plugin.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Where the signatures of a component lie.
fn signatures(component: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sig", component.display()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ServerError> {
    write(path, bytes).map_err(|error| ServerError::user(format!("cannot write {}: {error}", path.display())))
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    durable::write_whole(path, bytes)
}

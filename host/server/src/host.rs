//! A host: many pipelines, each with all of its versions, that go on after a restart of the process.
//!
//! What is to run is written down before it is done. So after a crash at any moment the next start does what was asked last, and a version that did not start
//! is followed by the one before it.
//!
//! Swaps of what runs are in [`swapping`].
//!
//! Invariants: one change of a pipeline at a time; whoever asks and goes away changes nothing about what is done.

pub mod swapping;

use crate::ServerError;
use crate::audit::Audit;
use crate::components::{Components, Pinned};
use crate::control::Request;
use crate::diff::{Diff, diff};
use crate::folder::{Before, Deployment, Desired, Folder, Version, Wanted};
use crate::hosted::{Hosted, Phase, Plan, inside};
use crate::logs::Logs;
use crate::names;
use crate::refusal::{Refusal, Why};
use crate::swaps::Order;
use crate::trust::Trust;
use crate::versions::{Asked, Base, LoadError, Loaded, aggregates_of};
use pelton_core::Epoch;
use pelton_core::key::MAX_PARALLELISM;
use pelton_core::trust::Policy;
use pelton_pipeline::{Files, Graph, Settings, Transform};
use pelton_plugin::{Engine, Plugin};
use pelton_runtime::clock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use swapping::TakeOver;

/// Between two samples of figures.
const SAMPLE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Host {
    /// Its data.
    pub folder: Folder,
    /// Its plugins.
    pub components: Components,
    /// What pipelines log.
    pub logs: Logs,
    /// Who has done what.
    pub audit: Audit,
    /// Since when it is there.
    pub began: clock::Stopwatch,
    /// Where relative paths start.
    base_dir: PathBuf,
    pipelines: Mutex<BTreeMap<String, Arc<Hosted>>>,
    ready: AtomicBool,
}

/// How to open a host.
pub struct HostOptions {
    /// Its data folder.
    pub data: PathBuf,
    /// Where relative paths in configs start.
    pub base_dir: PathBuf,
    /// What pipelines log.
    pub logs: Logs,
    /// Compiles plugins.
    pub engine: Engine,
    /// Whose plugins it takes, with keys that are read; `None`: whatever admins send.
    pub trust: Option<Policy>,
}

/// Who deploys, and why.
#[derive(Clone, Debug)]
pub struct Reason {
    /// A name.
    pub who: String,
    /// A sentence.
    pub note: Option<String>,
    /// The version that comes back.
    pub rollback_of: Option<u64>,
}

/// What became of a deployment.
#[derive(Clone, Debug, Serialize)]
pub struct Deployed {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The version that runs now; of a dry run, the one that runs.
    pub version: Option<u64>,
    /// What it changes.
    pub diff: Diff,
    /// What is odd in the file, as text.
    pub warnings: String,
    /// Whether anything was done.
    pub applied: bool,
    /// Whether the pipeline is to run, and has not failed.
    pub running: bool,
}

/// A copy of a pipeline's state.
#[derive(Clone, Debug, Serialize)]
pub struct Savepoint {
    /// The epoch that it holds.
    pub epoch: Epoch,
    /// Where it is.
    pub place: String,
}

/// One entry of a history.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Number of the version.
    pub version: u64,
    /// When it was deployed, RFC 3339.
    pub at: String,
    /// By whom.
    pub who: String,
    /// Why.
    pub note: Option<String>,
    /// The version that it brought back.
    pub rollback_of: Option<u64>,
    /// Why it did not take over, if it did not.
    pub refused: Option<String>,
    /// Digests of its plugins.
    pub plugins: BTreeMap<String, String>,
    /// Transforms that are other than its file says.
    pub changes: Vec<Asked>,
    /// Whether it is the one that is to run.
    pub current: bool,
}

/// A deployment that was checked.
struct Checked {
    name: String,
    graph: Graph,
    plugins: Vec<Arc<Plugin>>,
    now: i64,
}

impl Host {
    /// Opens the data folder. Nothing runs yet.
    pub fn open(options: HostOptions) -> Result<Arc<Host>, ServerError> {
        let HostOptions { data, base_dir, logs, engine, trust } = options;
        let folder = Folder::open(&data)?;
        let path = folder.root().join("audit.jsonl");
        let life = format!("{:x}", clock::now().micros());
        let audit = Audit::open(&path, life).map_err(|error| {
            ServerError::user(format!("cannot write the audit log {}: {error}; a host does nothing without it", path.display()))
        })?;
        let mut pipelines = BTreeMap::new();
        for name in folder.pipelines() {
            let log = logs.open(&name, &folder.pipeline(&name));
            pipelines.insert(name.clone(), Arc::new(Hosted::new(name, log, Phase::Stopped)));
        }
        let components = Components::new(folder.components(), engine, Trust::new(trust, folder.trust()));
        Ok(Arc::new(Host {
            folder,
            components,
            logs,
            audit,
            began: clock::Stopwatch::start(),
            base_dir,
            pipelines: Mutex::new(pipelines),
            ready: AtomicBool::new(false),
        }))
    }

    /// Starts everything that is to run, side by side, and takes samples of figures from now on.
    pub async fn begin(self: &Arc<Self>) {
        let mut starts = tokio::task::JoinSet::new();
        for hosted in self.pipelines() {
            let host = self.clone();
            starts.spawn(async move {
                let _change = hosted.change.lock().await;
                if let Err(refusal) = host.restore(&hosted).await {
                    tracing::error!(pipeline = hosted.name, "it does not go on: {refusal}");
                }
            });
        }
        let host = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE);
            loop {
                ticks.tick().await;
                let Some(host) = host.upgrade() else { return };
                host.pipelines().iter().for_each(|hosted| hosted.sample());
            }
        });
        while starts.join_next().await.is_some() {}
        self.ready.store(true, Relaxed);
    }

    /// Whether all that was to run has been started.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// Stops all pipelines with a last checkpoint; the next start goes on with them.
    pub async fn end(&self) {
        self.ready.store(false, Relaxed);
        let mut stops = tokio::task::JoinSet::new();
        for hosted in self.pipelines() {
            stops.spawn(async move {
                if let Err(refusal) = hosted.stop(false, None).await {
                    tracing::error!(pipeline = hosted.name, "{refusal}");
                }
            });
        }
        while stops.join_next().await.is_some() {}
    }

    /// All pipelines, by name.
    pub fn pipelines(&self) -> Vec<Arc<Hosted>> {
        self.pipelines.lock().expect("no holder of this lock panics").values().cloned().collect()
    }

    /// The pipeline of this name.
    pub fn pipeline(&self, name: &str) -> Result<Arc<Hosted>, Refusal> {
        let name = names::name(name)?;
        let found = self.pipelines.lock().expect("no holder of this lock panics").get(name).cloned();
        found.ok_or_else(|| Refusal::new(Why::Absent, format!("there is no pipeline `{name}`; `pelton list` shows what there is")))
    }

    /// As it was when the host ended.
    async fn restore(&self, hosted: &Arc<Hosted>) -> Result<(), Refusal> {
        let desired = self.folder.desired(&hosted.name)?;
        match desired.state {
            Wanted::Running | Wanted::Drained => self.start(hosted, desired).await,
            Wanted::Paused => {
                hosted.rest(Phase::Paused);
                Ok(())
            }
            Wanted::Stopped => {
                hosted.rest(Phase::Stopped);
                Ok(())
            }
        }
    }

    /// Starts what is written down as wanted; one that does not start is followed by the version before it.
    async fn start(&self, hosted: &Arc<Hosted>, desired: Desired) -> Result<(), Refusal> {
        let begun = hosted.start(desired.state == Wanted::Drained, self.plan(&hosted.name, desired.version)?).await;
        let message = match begun {
            Ok(()) if desired.before.is_none() => return self.find_out(hosted, desired).await,
            Ok(()) => return self.folder.keep_desired(&hosted.name, &Desired { before: None, ..desired }),
            Err(message) => message,
        };
        let Some(Before { version, state }) = desired.before else {
            return Err(Refusal::new(Why::Invalid, message));
        };
        let back = Desired::new(state, version);
        self.folder.keep_desired(&hosted.name, &back)?;
        inside(&hosted.name, || tracing::warn!(version, "the version before goes on, since {} did not start", desired.version));
        let goes_on = match state {
            Wanted::Running | Wanted::Drained => match hosted.start(false, self.plan(&hosted.name, version)?).await {
                Ok(()) => format!("version {version} goes on"),
                Err(message) => format!("version {version} does not start either: {message}"),
            },
            Wanted::Paused | Wanted::Stopped => {
                hosted.rest(if state == Wanted::Paused { Phase::Paused } else { Phase::Stopped });
                format!("version {version} is as it was")
            }
        };
        Err(Refusal::new(Why::Invalid, format!("{message}\n{goes_on}")))
    }

    /// How a version is loaded, on the pipeline's own thread.
    fn plan(&self, name: &str, version: u64) -> Result<impl FnOnce() -> Result<Plan, String> + Send + use<>, Refusal> {
        let Version { deployment, now, .. } = self.folder.version(name, version)?;
        let state = self.folder.pipeline(name).join("state");
        let base_dir = deployment.folder.clone().unwrap_or_else(|| self.base_dir.clone());
        let components = self.components.clone();
        Ok(move || {
            let (base, loaded) = load(&components, &deployment, now, &state).map_err(|refusal| refusal.message)?;
            Ok(Plan { base, loaded, deployment, base_dir, state })
        })
    }

    /// Checks a deployment, and makes it what runs unless it is a dry run. `older`: its plugins may be older than what the host has had.
    pub async fn deploy(self: &Arc<Self>, deployment: Deployment, reason: Reason, dry_run: bool, older: bool) -> Result<Deployed, Refusal> {
        let checked = self.check(&deployment, clock::now().micros()).await?;
        let name = checked.name.clone();
        if !older {
            self.components.trust().not_older(&checked.plugins, &self.digests_that_run(&name))?;
        }
        let (diff, current) = self.difference(&checked, &deployment).await?;
        let warnings = pelton_pipeline::render(&checked.graph.warnings);
        let running = self.is_running(&name);
        if dry_run {
            return Ok(Deployed { pipeline: name, version: current, diff, warnings, applied: false, running });
        }
        let hosted = self.find_or_make(&name)?;
        let _change = one_change(&hosted)?;
        let version = self.keep(&name, checked.now, deployment, reason)?;
        let applied = self.apply(&hosted, version, &diff, &checked.graph).await;
        applied.map_err(|refusal| self.refused(&name, version, refusal))?;
        self.components.trust().note(&checked.plugins)?;
        Ok(Deployed { pipeline: name, version: Some(version), diff, warnings, applied: true, running: true })
    }

    /// Digests of the plugins of the version that is to run.
    fn digests_that_run(&self, name: &str) -> Vec<String> {
        let current = self.folder.desired(name).and_then(|desired| self.folder.version(name, desired.version));
        current.map(|version| version.deployment.digests().cloned().collect()).unwrap_or_default()
    }

    /// Makes an earlier version what runs, as a new one.
    pub async fn roll_back(self: &Arc<Self>, name: &str, to: Option<u64>, reason: Reason, dry_run: bool) -> Result<Deployed, Refusal> {
        let hosted = self.pipeline(name)?;
        let current = self.folder.desired(name)?.version;
        let has_run = |number: &u64| self.folder.version(name, *number).is_ok_and(|version| version.refused.is_none());
        let before = || self.folder.versions(name).into_iter().rfind(|number| *number < current && has_run(number));
        let to = to.or_else(before).ok_or_else(|| Refusal::new(Why::Conflict, format!("`{name}` has no version before {current}")))?;
        let Version { deployment, now, .. } = self.folder.version(name, to)?;
        let checked = self.check(&deployment, now).await?;
        let (diff, _) = self.difference(&checked, &deployment).await?;
        let running = self.is_running(name);
        if dry_run {
            return Ok(Deployed { pipeline: name.into(), version: Some(current), diff, warnings: String::new(), applied: false, running });
        }
        let _change = one_change(&hosted)?;
        let version = self.keep(name, checked.now, deployment, Reason { rollback_of: Some(to), ..reason })?;
        let applied = self.apply(&hosted, version, &diff, &checked.graph).await;
        applied.map_err(|refusal| self.refused(name, version, refusal))?;
        Ok(Deployed { pipeline: name.into(), version: Some(version), diff, warnings: String::new(), applied: true, running: true })
    }

    /// Makes a version that is kept what runs.
    ///
    /// Where only plugins, their configs and expressions change, they are swapped while the pipeline runs. Every other change stops it with a
    /// checkpoint and starts it from there, by the uids of its transforms; a version that does not start is followed by the one before it.
    async fn apply(&self, hosted: &Arc<Hosted>, version: u64, diff: &Diff, graph: &Graph) -> Result<(), Refusal> {
        let name = &hosted.name;
        if let Some(orders) = hosted.orders().filter(|_| diff.in_place && hosted.phase() == Phase::Running) {
            let asked = self.asked(name, version, diff, graph)?;
            match self.take_over(name, version, &orders, Order { changes: asked, ..Order::default() }).await {
                Ok(_) => return Ok(()),
                Err(TakeOver::NeedsStart(why)) => inside(name, || tracing::info!(version, "the version needs a start: {why}")),
                Err(TakeOver::Refused(refusal)) => return Err(refusal),
            }
        }
        let before = match self.folder.desired(name) {
            Ok(desired) => Some(Before { version: desired.version, state: desired.state }),
            // The first version.
            Err(_) => None,
        };
        hosted.stop(false, None).await?;
        let desired = Desired { before, ..Desired::new(Wanted::Running, version) };
        self.folder.keep_desired(name, &desired)?;
        let started = self.start(hosted, desired).await;
        if started.is_err() && before.is_none() {
            // Nothing of it has ever run.
            self.forget(name)?;
        }
        started.map_err(|refusal| Refusal { message: format!("version {version} of `{name}` did not start: {refusal}"), ..refusal })
    }

    /// What a change in place asks of the running pipeline.
    fn asked(&self, name: &str, version: u64, diff: &Diff, graph: &Graph) -> Result<Vec<Asked>, Refusal> {
        let digests = self.digests(&self.folder.version(name, version)?.deployment);
        let changed = graph.nodes.iter().filter(|node| diff.transforms.iter().any(|change| change.transform == node.name));
        let digest = |provider: usize| digests.get(&*graph.providers[provider].path.to_string_lossy()).cloned();
        let asked = changed.flat_map(|node| {
            let aggregates = aggregates_of(node);
            let aggregates: Vec<Asked> = aggregates
                .map(|(transform, provider, config)| Asked { transform, plugin: digest(provider), config: Some(config.clone()) })
                .collect();
            if !aggregates.is_empty() {
                return aggregates;
            }
            let plugin = match &node.transform {
                Transform::Plugin { provider, .. } => digest(*provider),
                _ => None,
            };
            let config = (!node.written.is_null()).then(|| node.written.clone());
            vec![Asked { transform: node.name.clone(), plugin, config }]
        });
        Ok(asked.collect())
    }

    fn is_running(&self, name: &str) -> bool {
        let wanted = self.folder.desired(name).is_ok_and(|desired| desired.state == Wanted::Running);
        wanted && self.pipeline(name).is_ok_and(|hosted| hosted.phase() != Phase::Failed)
    }

    async fn check(self: &Arc<Self>, deployment: &Deployment, now: i64) -> Result<Checked, Refusal> {
        let missing: Vec<&String> = deployment.digests().filter(|digest| !self.components.has(digest)).collect();
        if !missing.is_empty() {
            let message = "the host does not have all plugins of the pipeline; send them first with PUT /v1/plugins/{digest}";
            let details = Some(serde_json::json!({ "missing_plugins": missing }));
            return Err(Refusal { details, ..Refusal::new(Why::Conflict, message) });
        }
        if deployment.parallelism.is_some_and(|parallelism| !(1..=MAX_PARALLELISM).contains(&parallelism)) {
            return Err(Refusal::new(
                Why::Invalid,
                format!("`parallelism` must be between 1 and {MAX_PARALLELISM}, the number of key groups"),
            ));
        }
        let (host, deployment) = (self.clone(), deployment.clone());
        // Plugins are compiled.
        let checked = tokio::task::spawn_blocking(move || {
            let (_, Loaded { graph, plugins }) = load(&host.components, &deployment, now, Path::new(""))?;
            let name = names::name(&graph.name).map_err(|refusal| {
                Refusal::new(Why::Invalid, format!("{refusal}\n  next: give the pipeline one with `options.pelton.name`"))
            })?;
            Ok(Checked { name: name.into(), graph, plugins, now })
        });
        checked.await.unwrap_or_else(|panic| Err(Refusal::new(Why::Broken, format!("internal error while checking: {panic}"))))
    }

    /// From the version that is to run, if there is one, to a checked one.
    async fn difference(self: &Arc<Self>, checked: &Checked, deployment: &Deployment) -> Result<(Diff, Option<u64>), Refusal> {
        let Some(current) = self.folder.desired(&checked.name).ok().map(|desired| desired.version) else {
            return Ok((diff(None, (&checked.graph, &deployment.plugins)), None));
        };
        let digests = |deployment: &Deployment| self.digests(deployment);
        let old = self.folder.version(&checked.name, current)?;
        let graph = self.check(&old.deployment, old.now).await.map(|checked| checked.graph);
        // One that cannot be read any more is replaced as a whole.
        let (old_digests, new_digests) = (digests(&old.deployment), digests(deployment));
        let old_side = graph.as_ref().ok().map(|graph| (graph, &old_digests));
        let mut diff = diff(old_side, (&checked.graph, &new_digests));
        // Those that transforms were swapped to stand with the transforms.
        diff.plugins.retain(|plugin| [&old.deployment, deployment].iter().any(|one| one.plugins.contains_key(&plugin.name)));
        diff.compare("--parallelism", &old.deployment.parallelism, &deployment.parallelism);
        diff.compare("folder of relative paths", &old.deployment.folder, &deployment.folder);
        Ok((diff, Some(current)))
    }

    /// Digests by the paths under which the graph of a deployment knows its plugins.
    fn digests(&self, deployment: &Deployment) -> BTreeMap<String, String> {
        let swapped = deployment.changes.iter().filter_map(|change| {
            let digest = change.plugin.as_ref()?;
            Some((self.components.path(digest).ok()?.to_string_lossy().into_owned(), digest.clone()))
        });
        deployment.plugins.clone().into_iter().chain(swapped).collect()
    }

    fn keep(&self, name: &str, now: i64, deployment: Deployment, reason: Reason) -> Result<u64, Refusal> {
        self.folder.make_pipeline(name)?;
        let number = self.folder.versions(name).last().map_or(1, |last| last + 1);
        let Reason { who, note, rollback_of } = reason;
        let version = Version { number, at: clock::now().to_string(), now, who, note, rollback_of, refused: None, deployment };
        self.folder.keep_version(name, &version)?;
        Ok(number)
    }

    /// Notes that a version did not take over, in the history and in the log, unless the next start is to find out whether it has.
    fn refused(&self, name: &str, version: u64, refusal: Refusal) -> Refusal {
        let is_open = self.folder.desired(name).is_ok_and(|desired| desired.taking_over == Some(version));
        if !is_open && let Ok(kept) = self.folder.version(name, version) {
            inside(name, || tracing::warn!(version, "the version was refused: {refusal}"));
            if let Err(unwritten) = self.folder.keep_version(name, &Version { refused: Some(refusal.message.clone()), ..kept }) {
                tracing::error!(pipeline = name, "{unwritten}; the history lists the version as if it had run");
            }
        }
        refusal
    }

    fn find_or_make(&self, name: &str) -> Result<Arc<Hosted>, Refusal> {
        self.folder.make_pipeline(name)?;
        let mut pipelines = self.pipelines.lock().expect("no holder of this lock panics");
        let make = || {
            let log = self.logs.open(name, &self.folder.pipeline(name));
            Arc::new(Hosted::new(name.into(), log, Phase::Stopped))
        };
        Ok(pipelines.entry(name.into()).or_insert_with(make).clone())
    }

    fn forget(&self, name: &str) -> Result<(), Refusal> {
        self.pipelines.lock().expect("no holder of this lock panics").remove(name);
        self.logs.forget(name);
        self.folder.remove_pipeline(name)
    }

    /// Stands still until it is resumed, also over a restart of the host.
    pub async fn pause(&self, name: &str) -> Result<(), Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        self.must_not_have_ended(&hosted)?;
        self.want(name, Wanted::Paused)?;
        hosted.stop(false, None).await?;
        if hosted.phase() != Phase::Ended {
            hosted.rest(Phase::Paused);
        }
        Ok(())
    }

    /// Goes on from its last checkpoint.
    pub async fn resume(&self, name: &str) -> Result<(), Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        hosted.gone_if_failed().await;
        if hosted.is_alive() {
            return Ok(());
        }
        let desired = self.want(name, Wanted::Running)?;
        self.start(&hosted, desired).await
    }

    /// Moves the watermark to the end, so that all windows fire, and ends.
    pub async fn drain(&self, name: &str) -> Result<(), Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        self.must_not_have_ended(&hosted)?;
        let desired = self.want(name, Wanted::Drained)?;
        match hosted.is_alive() {
            true => hosted.stop(true, None).await.map(drop),
            false => {
                self.start(&hosted, desired).await?;
                hosted.stop(true, None).await.map(drop)
            }
        }
    }

    /// Stops with a last checkpoint, which is copied if a place is given.
    pub async fn stop(&self, name: &str, place: Option<String>) -> Result<Option<Savepoint>, Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        self.want(name, Wanted::Stopped)?;
        if !hosted.is_alive() {
            let copied = match place {
                Some(place) => Some(self.copy(name, place).await?),
                None => None,
            };
            if hosted.phase() != Phase::Ended {
                hosted.rest(Phase::Stopped);
            }
            return Ok(copied);
        }
        let stopped = hosted.stop(false, place).await;
        if hosted.phase() != Phase::Ended {
            hosted.rest(Phase::Stopped);
        }
        Ok(stopped?.map(|(epoch, place)| Savepoint { epoch, place }))
    }

    /// Copies the state as of now, or the last checkpoint of a pipeline that does not run.
    pub async fn savepoint(&self, name: &str, place: String) -> Result<Savepoint, Refusal> {
        let hosted = self.pipeline(name)?;
        let Some(orders) = hosted.orders() else { return self.copy(name, place).await };
        let reply = orders.carry_out(Request::Savepoint { place: place.clone() }).await;
        match (reply["epoch"].as_u64(), reply["error"].as_str()) {
            (Some(epoch), _) => Ok(Savepoint { epoch, place }),
            (None, error) => Err(Refusal::new(Why::Conflict, error.unwrap_or("the pipeline does not answer"))),
        }
    }

    async fn copy(&self, name: &str, place: String) -> Result<Savepoint, Refusal> {
        let store = pelton_runtime::checkpoint::place::of(&self.folder.pipeline(name).join("state"));
        let (runtime, target) = (tokio::runtime::Handle::current(), place.clone());
        // What stores give cannot be sent between threads.
        let copying = tokio::task::spawn_blocking(move || runtime.block_on(pelton_runtime::checkpoint::copy_newest(&store, &target)));
        let copied = copying.await.unwrap_or_else(|panic| Err(format!("internal error while copying: {panic}")));
        copied.map(|epoch| Savepoint { epoch, place }).map_err(|message| Refusal::new(Why::Conflict, message))
    }

    /// Forgets a pipeline that does not run: its versions, its state, its log.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        if hosted.is_alive() {
            return Err(Refusal::new(Why::Conflict, format!("`{name}` runs; stop it first with `pelton stop {name}`")));
        }
        self.forget(name)
    }

    /// Every version, the newest last.
    pub fn history(&self, name: &str) -> Result<Vec<Entry>, Refusal> {
        self.pipeline(name)?;
        let current = self.folder.desired(name)?.version;
        let versions = self.folder.versions(name).into_iter().map(|number| {
            let Version { number, at, who, note, rollback_of, refused, deployment, .. } = self.folder.version(name, number)?;
            let Deployment { plugins, changes, .. } = deployment;
            Ok(Entry { version: number, at, who, note, rollback_of, refused, plugins, changes, current: number == current })
        });
        versions.collect()
    }

    fn want(&self, name: &str, state: Wanted) -> Result<Desired, Refusal> {
        let desired = Desired { state, before: None, ..self.folder.desired(name)? };
        self.folder.keep_desired(name, &desired)?;
        Ok(desired)
    }

    fn must_not_have_ended(&self, hosted: &Hosted) -> Result<(), Refusal> {
        match hosted.phase() {
            Phase::Ended => Err(Refusal::new(Why::Conflict, format!("`{}` has ended: its input was read to the end", hosted.name))),
            _ => Ok(()),
        }
    }
}

/// The right to change a pipeline, for as long as it is held.
fn one_change(hosted: &Hosted) -> Result<tokio::sync::OwnedMutexGuard<()>, Refusal> {
    hosted.change.clone().try_lock_owned().map_err(|_| {
        Refusal::new(
            Why::Conflict,
            format!("another change of `{}` is under way; look with `pelton status {0}` and try again", hosted.name),
        )
    })
}

/// From a deployment to a checked graph and its plugins. `state`: the pipeline's folder, once it has one.
fn load(components: &Components, deployment: &Deployment, now: i64, state: &Path) -> Result<(Base, Loaded), Refusal> {
    let includes = deployment.includes.clone();
    let read = move |path: &Path| {
        let text = includes.get(&*path.to_string_lossy()).cloned();
        text.ok_or_else(|| "it was not sent along; `pelton deploy` sends the files that a pipeline includes".to_string())
    };
    let change = |asked: &Asked| {
        let plugin = asked.plugin.as_ref().map(|digest| components.path(digest)).transpose()?;
        Ok::<_, Refusal>(pelton_pipeline::Change { transform: asked.transform.clone(), plugin, config: asked.config.clone() })
    };
    let settings = Settings {
        file: deployment.file.clone().into(),
        text: deployment.text.clone(),
        variables: deployment.variables.clone().into_iter().collect(),
        files: Files::read_by(read),
        now,
        changes: deployment.changes.iter().map(change).collect::<Result<_, _>>()?,
    };
    let swapped = state.join("components");
    let pinned = Pinned {
        components: components.clone(),
        digests: deployment.plugins.clone(),
        swapped: swapped.clone(),
        folder: Path::new(&deployment.file).parent().unwrap_or(Path::new("")).into(),
        includes: deployment.includes.clone(),
    };
    let (base, loaded) = Base::new(settings, Box::new(pinned)).map_err(|error: LoadError| Refusal::new(Why::Invalid, error.text()))?;
    Ok((base.in_folder(swapped), loaded))
}

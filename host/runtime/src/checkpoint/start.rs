//! How a pipeline with checkpoints starts, and starts again: carries out the steps of `pelton_core::checkpoint::Recovery`.

use super::crashes::Crashes;
use super::keep::{NodeEntry, StoreKeep};
use super::load::{Ends, Loaded, Reading, load, staged_of};
use super::outbox;
use super::restored::RestoredOperator;
use crate::failure::Failure;
use pelton_connect::{CommitTarget, Commits, Committer, Decider, Identity, open_commits};
use pelton_core::checkpoint::{Answer, Prepared, Recovery, Refusal, Step, Take};
use pelton_core::swap::{Version, Versions};
use pelton_core::{Decision, Duration, Epoch, Generation, failpoint};
use pelton_state::durable::{self, Checkpoints, Progress, Snapshot, StoreError, Stored, TakeOver, Taken};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where a pipeline keeps its checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// The folder of the pipeline's state.
    pub state: PathBuf,
    /// Where checkpoints go: a folder or a URL. `None`: into the state folder.
    pub storage: Option<String>,
    /// Another process that holds the lock loses its ownership.
    pub take_over: bool,
    /// What an earlier life of this name has decided does not count: the pipeline begins anew.
    pub anew: bool,
    /// The generation that this process was last; 0: none. A start after a failure does not take over from who came after it.
    pub generation: Arc<AtomicU64>,
    /// A savepoint that a pipeline without checkpoints begins with.
    pub from: Option<FromSavepoint>,
    /// This process in the store's register; 0: it has not had the store open yet.
    pub writer: Arc<AtomicU64>,
    /// In tests: when barriers and a crash come.
    pub crashes: Option<Crashes>,
    /// Uids whose state may be dropped.
    pub drop_state: Vec<String>,
    /// What the pipeline's file says of its transforms, by name: swaps hold on top of it.
    pub file: BTreeMap<String, Version>,
    /// The swaps that the graph was loaded with.
    pub versions: Versions,
}

/// What a pipeline begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromSavepoint {
    /// The folder or URL of a savepoint.
    pub place: String,
    /// What a store is told that has begun already.
    pub otherwise: Otherwise,
}

/// See [`FromSavepoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It is refused: whoever asks for a new pipeline must not disturb another.
    Refuse,
    /// It goes on: each start says what the first one began with.
    GoOn,
}

impl CheckpointOptions {
    /// The folder or URL of the store.
    pub fn place(&self) -> String {
        self.storage.clone().unwrap_or_else(|| self.state.join("checkpoints").display().to_string())
    }

    /// Where followers keep what they have staged.
    pub fn outbox(&self) -> PathBuf {
        self.state.join("outbox")
    }
}

/// A store that may be used from several machines is looked at for so long before it is taken: whoever is at work there decides an epoch in that time.
const SILENCE: Duration = Duration::from_micros(2_000_000);
/// The same, in intervals of the pipeline's checkpoints.
const SILENT_INTERVALS: i64 = 3;

/// A pipeline that may run.
pub struct Start {
    /// The store.
    pub store: Arc<Checkpoints>,
    /// Who it is.
    pub identity: Identity,
    /// The epoch that it begins with.
    pub epoch: Epoch,
    /// What it goes on from, by node.
    pub restored: HashMap<usize, RestoredOperator>,
    /// Where tasks read rows themselves: as long as it is held, its files stay.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Decides.
    pub decider: Box<dyn Decider>,
    /// Commit: by uid.
    pub committers: Vec<(String, Box<dyn Committer>)>,
    /// What sinks share, by uid.
    pub shared: Vec<(String, Arc<dyn Any + Send + Sync>)>,
    /// Keeps epochs.
    pub keep: StoreKeep,
}

/// How a start came out.
pub enum Started {
    /// It may run.
    Run(Box<Start>),
    /// There is nothing to run: all input was read, and everything is visible.
    Ended(Epoch),
    /// The graph is to be loaded with these swaps, which are those of the epoch that the pipeline goes on from.
    Otherwise(Versions),
}

/// What is being started.
pub struct Starting<'a> {
    /// Name of the pipeline.
    pub name: &'a str,
    /// What manifests say of its nodes.
    pub nodes: Arc<Vec<NodeEntry>>,
    /// Its sinks.
    pub sinks: Vec<CommitTarget>,
    /// Between two barriers.
    pub interval: Duration,
    /// When the rows of state are read.
    pub reading: Reading,
    /// For connectors.
    pub io: tokio::runtime::Handle,
}

/// The commits of a start, once the generation is known.
struct Opened {
    identity: Identity,
    decider: Option<Box<dyn Decider>>,
    committers: Vec<(String, Box<dyn Committer>)>,
    shared: Vec<(String, Arc<dyn Any + Send + Sync>)>,
}

/// From the folder to the first epoch.
pub async fn start(starting: Starting<'_>, options: &CheckpointOptions) -> Result<Started, Failure> {
    let storage = durable::storage::open(&options.place()).map_err(Failure::store)?;
    let identity = durable::Identity { pipeline: starting.name.into(), version: env!("CARGO_PKG_VERSION").into() };
    let store = match options.writer.load(Relaxed) {
        0 => Checkpoints::open(storage, identity).await,
        writer => Checkpoints::open_as(storage, identity, writer).await,
    };
    let store = Arc::new(store.map_err(Failure::store)?);
    options.writer.store(store.writer(), Relaxed);
    let before = options.generation.load(Relaxed);
    if before == 0 {
        is_alone(&store, &starting, options).await?;
    }
    match recover(&store, starting, options).await {
        Err(failure) if options.generation.load(Relaxed) != before => Err(explain(&store, failure).await),
        recovered => recovered,
    }
}

/// Refuses what would disturb another pipeline, before anything is changed.
async fn is_alone(store: &Checkpoints, starting: &Starting<'_>, options: &CheckpointOptions) -> Result<(), Failure> {
    if let Some(FromSavepoint { place, otherwise: Otherwise::Refuse }) = &options.from
        && store.has_begun().await.map_err(Failure::store)?
    {
        let message = format!("--from {place} begins a new pipeline, and one has begun in {} already", store.place());
        let next = "name another place with --state or `checkpoint.storage`, or leave --from out and go on with what is there";
        return Err(Failure::store(StoreError::user(message, next)));
    }
    if options.take_over || options.storage.is_none() {
        return Ok(());
    }
    let before = store.progress().await;
    // Nobody has had it yet, or nobody has anything left to do there.
    if before.generation == 0 || before.ended {
        return Ok(());
    }
    let silence = SILENCE.micros().max(starting.interval.micros() * SILENT_INTERVALS);
    tokio::time::sleep(std::time::Duration::from_micros(silence.unsigned_abs())).await;
    match store.newest_progress().await.map_err(Failure::store)?.slot == before.slot {
        true => Ok(()),
        false => {
            let message = format!("another process is at work in {}: its register has just changed", store.place());
            let next = "stop that process first; if it cannot be reached, start with `--take-over`, which ends its ownership";
            Err(Failure::store(StoreError::user(message, next)))
        }
    }
}

/// Who has been overtaken meets strange things: what it reads is deleted, what it asks for is refused. Then that is the reason to tell.
async fn explain(store: &Checkpoints, failure: Failure) -> Failure {
    match store.check_owner().await {
        Err(fenced @ StoreError::Fenced { .. }) => Failure::store(fenced),
        _ => failure,
    }
}

async fn recover(store: &Arc<Checkpoints>, starting: Starting<'_>, options: &CheckpointOptions) -> Result<Started, Failure> {
    let pipeline = store.pipeline();
    let failed = options.generation.load(Relaxed);
    let mut recovery = match failed {
        0 => Recovery::start(pipeline.clone()),
        generation => Recovery::restart(pipeline.clone(), generation),
    };
    let mut recovering = Recovering::new(store, starting, options, pipeline, failed != 0);
    loop {
        let answer = match recovery.step().clone() {
            Step::TakeGeneration(take) => {
                let take_over = if options.take_over || failed != 0 { TakeOver::Yes } else { TakeOver::No };
                take_generation(store, take, take_over).await?
            }
            Step::Fence(generation) => recovering.fence(generation).await?,
            Step::ReadDecision => recovering.read_decision().await?,
            Step::ReadStore => recovering.read_store().await?,
            Step::RollForward(decided) => recovering.roll_forward(&decided).await?,
            Step::RecordCommit(_) => recovering.record_commit().await?,
            Step::Discard { after, .. } => recovering.discard(after).await?,
            Step::Restore(decided) => match recovering.restore(decided.as_ref()).await? {
                Restored::Done => Answer::Done,
                Restored::Otherwise(versions) => return Ok(Started::Otherwise(versions)),
            },
            Step::Start { generation: _, epoch } => return Ok(Started::Run(Box::new(recovering.into_start(epoch)))),
            Step::Ended { epoch } => return Ok(Started::Ended(epoch)),
            Step::Refuse(refusal) => return Err(refused(&refusal, recovering.found.as_ref())),
        };
        recovery.answer(answer);
    }
}

/// What a recovery has found and opened so far.
struct Recovering<'a> {
    store: &'a Arc<Checkpoints>,
    starting: Starting<'a>,
    options: &'a CheckpointOptions,
    pipeline: String,
    /// After a failure, in the same process.
    again: bool,
    ends: Option<Opened>,
    decision: Option<Decision>,
    found: Option<Stored>,
    loaded: Loaded,
    versions: Versions,
    snapshot: Option<Arc<Snapshot>>,
}

/// How the restore came out.
enum Restored {
    Done,
    /// See [`Started::Otherwise`].
    Otherwise(Versions),
}

/// Opened by the fence, which comes before all that asks for it.
const FENCED: &str = "the fence came before";

impl<'a> Recovering<'a> {
    fn new(
        store: &'a Arc<Checkpoints>,
        starting: Starting<'a>,
        options: &'a CheckpointOptions,
        pipeline: String,
        again: bool,
    ) -> Recovering<'a> {
        let (loaded, versions) = (Loaded::default(), Versions::default());
        Recovering { store, starting, options, pipeline, again, ends: None, decision: None, found: None, loaded, versions, snapshot: None }
    }

    async fn fence(&mut self, generation: Generation) -> Result<Answer, Failure> {
        let options = self.options;
        options.generation.store(generation, Relaxed);
        let mut opened = open_ends(&self.starting, options, &self.pipeline, generation, self.again).await?;
        let decision = match &mut opened.decider {
            Some(decider) => decider.fence().await.map_err(|error| Failure::Connect { transform: decider.describe(), error })?,
            None => self.store.progress().await.decided,
        };
        self.decision = decision.filter(|decision| !options.anew || decision.pipeline == self.pipeline);
        self.ends = Some(opened);
        failpoint::hit("run.fenced");
        Ok(Answer::Done)
    }

    async fn read_decision(&mut self) -> Result<Answer, Failure> {
        let ours = decider_of(self.ends.as_ref());
        let newest = newest_of_others(&self.store.stored().await.map_err(Failure::store)?, &ours);
        self.decision = from_former(newest, &ours, self.store.progress().await, self.decision.take())?;
        Ok(Answer::Decision(self.decision.clone()))
    }

    async fn read_store(&mut self) -> Result<Answer, Failure> {
        let read = self.store.stored().await.map_err(Failure::store)?;
        let newest = self.store.newest_generation().await.map_err(Failure::store)?;
        let answer = in_store(&read, newest);
        self.found = Some(read);
        Ok(answer)
    }

    async fn roll_forward(&mut self, decided: &Prepared) -> Result<Answer, Failure> {
        let prepared = self.found.as_ref().and_then(|found| found.of(decided));
        let ends = self.ends.as_mut().expect(FENCED);
        if let Some(prepared) = prepared {
            outbox::bring_back(self.store, &ends.identity.outbox, prepared).await?;
        }
        for (uid, committer) in &mut ends.committers {
            let staged = prepared.map_or_else(Vec::new, |prepared| staged_of(&prepared.manifest, uid));
            let committed = committer.commit(decided.epoch, &staged).await;
            committed.map_err(|error| Failure::Connect { transform: uid.clone(), error })?;
        }
        failpoint::hit("run.rolled");
        Ok(Answer::Done)
    }

    async fn record_commit(&self) -> Result<Answer, Failure> {
        if let Some(decision) = &self.decision {
            self.store.record_commit(decision).await.map_err(Failure::store)?;
        }
        Ok(Answer::Done)
    }

    async fn discard(&mut self, after: Epoch) -> Result<Answer, Failure> {
        let ends = self.ends.as_mut().expect(FENCED);
        discard(self.store, ends, self.found.as_ref(), self.decision.as_ref(), after).await?;
        failpoint::hit("run.discarded");
        Ok(Answer::Done)
    }

    /// From the decided epoch, else from a savepoint, else from nothing.
    async fn restore(&mut self, decided: Option<&Prepared>) -> Result<Restored, Failure> {
        let (options, starting) = (self.options, &self.starting);
        if let Some(prepared) = decided.zip(self.found.as_ref()).and_then(|(decided, found)| found.of(decided)) {
            let (holding, _) = prepared.manifest.contents.versions.over(|transform| options.file.get(transform).cloned());
            if holding.replaced != options.versions.replaced {
                return Ok(Restored::Otherwise(holding));
            }
            self.versions = holding;
            let before = &prepared.manifest.contents.dropped;
            let (again, drop_state): (Vec<_>, Vec<_>) = options.drop_state.iter().cloned().partition(|name| before.contains(name));
            if !again.is_empty() && !self.again {
                tracing::info!(names = again.join(", "), "dropped at an earlier start that was told the same: what has come since is kept");
            }
            let snapshot = self.snapshot.insert(Arc::new(self.store.snapshot(prepared)));
            self.loaded = load(snapshot, &starting.nodes, &drop_state, Ends::Same, starting.reading).await?;
            failpoint::hit("run.restored");
        } else if let Some(adopted) = self.store.adopted() {
            self.loaded = load(&adopted, &starting.nodes, &options.drop_state, Ends::New, starting.reading).await?;
            self.snapshot = Some(Arc::new(adopted));
        } else if let Some(FromSavepoint { place, .. }) = &options.from {
            let savepoint = durable::savepoint::open(durable::storage::open(place).map_err(Failure::store)?).await;
            let savepoint = savepoint.map_err(Failure::store)?;
            // What does not fit is refused before anything is copied.
            self.loaded = load(&savepoint, &starting.nodes, &options.drop_state, Ends::New, starting.reading).await?;
            self.store.adopt(&savepoint).await.map_err(Failure::store)?;
            self.snapshot = Some(Arc::new(savepoint));
        }
        Ok(Restored::Done)
    }

    fn into_start(self, epoch: Epoch) -> Start {
        let name = decider_of(self.ends.as_ref());
        let Opened { identity, decider, committers, shared } = self.ends.expect(FENCED);
        let Loaded { restored, anew } = self.loaded;
        let mut keep = StoreKeep::new(self.store.clone(), self.starting.nodes.clone(), name);
        (keep.anew, keep.versions, keep.dropped) = (anew, self.versions, self.options.drop_state.clone());
        keep.outbox = self.options.storage.as_ref().map(|_| self.options.outbox());
        let decider = decider.unwrap_or_else(|| Box::new(keep.decider()) as Box<dyn Decider>);
        let snapshot = self.snapshot.filter(|_| self.starting.reading == Reading::Later);
        Start { store: self.store.clone(), identity, epoch, restored, snapshot, decider, committers, shared, keep }
    }
}

async fn take_generation(store: &Checkpoints, take: Take, take_over: TakeOver) -> Result<Answer, Failure> {
    Ok(match store.take_generation(take, take_over).await.map_err(Failure::store)? {
        Taken::Ours(generation) => Answer::Taken(generation),
        Taken::Overtaken(theirs) => Answer::Overtaken(theirs),
    })
}

async fn open_ends(
    starting: &Starting<'_>,
    options: &CheckpointOptions,
    pipeline: &str,
    generation: Generation,
    again: bool,
) -> Result<Opened, Failure> {
    let identity = Identity {
        pipeline: pipeline.into(),
        generation,
        again,
        interval: std::time::Duration::from_micros(starting.interval.micros().unsigned_abs()),
        outbox: options.outbox(),
    };
    let commits = open_commits(starting.sinks.clone(), identity.clone(), &starting.io).await;
    let Commits { decider, committers, shared } = commits.map_err(|error| Failure::Connect { transform: "sinks".into(), error })?;
    Ok(Opened { identity, decider, committers, shared })
}

/// Who decides, as manifests call it: a kind, and for some where it is.
fn decider_of(ends: Option<&Opened>) -> String {
    ends.and_then(|ends| ends.decider.as_ref()).map_or_else(|| "local".to_string(), |decider| decider.describe())
}

/// The newest checkpoint that another kind of decider decides than ours, and that decider.
fn newest_of_others(stored: &Stored, ours: &str) -> Option<(Epoch, String)> {
    let kind = |decider: &str| decider.split(' ').next().unwrap_or_default().to_string();
    let others = stored.epochs.iter().map(|epoch| (epoch.id.epoch, &epoch.manifest.contents.decider));
    others.filter(|(_, decider)| kind(decider) != kind(ours)).max().map(|(epoch, decider)| (epoch, decider.clone()))
}

/// The last decision, where a pipeline may have had another decider before: its sinks or its `delivery` were changed. The former one is not asked. What it
/// decided is known if the store has recorded the newest epoch that it could decide as committed.
fn from_former(
    newest_of_others: Option<(Epoch, String)>,
    ours: &str,
    recorded: Progress,
    decision: Option<Decision>,
) -> Result<Option<Decision>, Failure> {
    match newest_of_others {
        None => Ok(decision),
        Some((epoch, _)) if epoch <= recorded.committed => {
            Ok([decision, recorded.decided].into_iter().flatten().max_by_key(|decision| decision.epoch))
        }
        Some((epoch, former)) => Err(Failure::Checkpoint {
            message: format!(
                "whether checkpoint {epoch} counts was decided by {former}, and it is not recorded what it said; now {ours} decides\n  next: run the pipeline \
                 as it was (`delivery` and sinks), end it with `pelton stop`, and change it then"
            ),
            refused: true,
        }),
    }
}

fn in_store(stored: &Stored, newest: Generation) -> Answer {
    for unreadable in &stored.unreadable {
        tracing::warn!(
            epoch = unreadable.id.epoch,
            generation = unreadable.id.generation,
            "a checkpoint cannot be read: {}",
            unreadable.message
        );
    }
    Answer::Store { prepared: stored.prepared(), recorded: stored.progress.committed, newest }
}

/// With the checkpoints that cannot be read: one of them may be the one that is missed.
fn refused(refusal: &Refusal, found: Option<&Stored>) -> Failure {
    let unreadable: String =
        found.iter().flat_map(|found| &found.unreadable).map(|unreadable| format!("\n  found: {}", unreadable.message)).collect();
    Failure::Checkpoint { message: format!("{refusal}{unreadable}\n  next: {}", refusal.next_step()), refused: true }
}

/// Removes what was staged and prepared after an epoch.
async fn discard(
    store: &Checkpoints,
    ends: &mut Opened,
    found: Option<&Stored>,
    decision: Option<&Decision>,
    after: Epoch,
) -> Result<(), Failure> {
    let resumed = found.zip(decision).and_then(|(found, decision)| found.decided(decision));
    for (uid, committer) in &mut ends.committers {
        let staged = resumed.map_or_else(Vec::new, |prepared| staged_of(&prepared.manifest, uid));
        let recovered = committer.recover(after, &staged).await;
        recovered.map_err(|error| Failure::Connect { transform: uid.clone(), error })?;
    }
    match found {
        Some(found) => store.resume(found, resumed).await.map_err(Failure::store),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_decider_goes_on_from_what_the_former_one_is_known_to_have_decided() {
        let decision = |epoch| Some(Decision { pipeline: "p.1".into(), epoch, generation: 1, manifest: epoch });
        let recorded = |epoch| Progress { decided: decision(epoch), committed: epoch, ..Progress::default() };
        let epoch = |newest: Option<Epoch>, recorded, ours| {
            let found = from_former(newest.map(|epoch| (epoch, "Kafka at h:1".to_string())), "local", recorded, ours);
            found.map(|decision| decision.map_or(0, |decision| decision.epoch)).map_err(|failure| failure.to_string())
        };
        // Never another one; all of its epochs are committed; the new one has gone on from there.
        assert_eq!(epoch(None, recorded(7), decision(8)), Ok(8));
        assert_eq!(epoch(Some(7), recorded(7), None), Ok(7));
        assert_eq!(epoch(Some(7), recorded(9), decision(9)), Ok(9));
        let refused = epoch(Some(8), recorded(7), None).unwrap_err();
        assert!(refused.contains("checkpoint 8 counts was decided by Kafka at h:1") && refused.contains("pelton stop"), "{refused}");
    }
}

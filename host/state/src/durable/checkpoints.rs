//! A pipeline's checkpoints in a storage.
//!
//! The life of a process: [`Checkpoints::open`] → [`Checkpoints::take_generation`] → [`Checkpoints::stored`], from which the runtime concludes where to go on →
//! [`Checkpoints::resume`] → for each epoch [`Checkpoints::write_epoch`], [`Checkpoints::decide_local`] if nothing else decides, [`Checkpoints::record_commit`],
//! and beside that [`Checkpoints::collect`] and [`Checkpoints::compact`]. After a failure within the process: from the start.
//!
//! `identity` is a sealed JSON file. It is created first, and never changed: a folder belongs to one pipeline. `adopted` is a sealed manifest: what a pipeline
//! that begins with a savepoint goes out from, until it has an epoch that is decided.

use super::compact::Replacement;
use super::manifest::{Contents, FORMAT, Manifest, ManifestId, NOW, SegmentEntry};
use super::progress::{self, Progress, Register};
use super::segment::{SectionKind, SegmentWriter};
use super::snapshot::Snapshot;
use super::storage::{Created, Storage};
use super::{StoreError, random, sealed};
use crate::rows::Newest;
use crate::{Change, Row, Rows};
use pelton_core::checkpoint::{Prepared, Take};
use pelton_core::{Decision, Epoch, Generation, failpoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

const IDENTITY: &str = "identity";
pub(super) const ADOPTED: &str = "adopted";

/// Who uses a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The version of pelton.
    pub version: String,
}

/// What `identity` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    pipeline: String,
    incarnation: String,
    version: String,
}

/// What happens if another process holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// It is an error: somebody has started the pipeline twice.
    No,
    /// The other one loses its ownership.
    Yes,
}

/// See the module.
pub struct Checkpoints {
    pub(super) storage: Arc<dyn Storage>,
    identity: Identity,
    incarnation: String,
    pub(super) register: Register,
    current: Mutex<Current>,
    lock: Mutex<Option<Arc<std::fs::File>>>,
}

/// What this process knows without looking.
#[derive(Default)]
pub(super) struct Current {
    pub generation: Generation,
    /// The manifests that lead to the present, from old to new. The last is the parent of the next epoch.
    pub lineage: Vec<Arc<Manifest>>,
    /// What the first epoch goes out from if it has no parent: a savepoint.
    pub adopted: Option<Arc<Manifest>>,
    /// A merged segment, to be named by the next manifest.
    pub replacement: Option<Replacement>,
    /// Manifests whose files are being read.
    pub pins: Vec<(Weak<()>, Arc<Manifest>)>,
    /// Outbox files up to this epoch are gone.
    pub delivered: Epoch,
    /// Makes names of this generation's files unique.
    pub number: u64,
}

/// An epoch whose manifest is durable.
#[derive(Clone, Debug)]
pub struct StoredEpoch {
    /// Which.
    pub id: ManifestId,
    /// Hash of the manifest, as it stands in the decision.
    pub hash: u64,
    /// The manifest.
    pub manifest: Arc<Manifest>,
}

/// A manifest that could not be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Which.
    pub id: ManifestId,
    /// Why not, with its path.
    pub message: String,
}

/// What there is in a store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What is decided and committed as far as the store knows.
    pub progress: Progress,
    /// Epochs that are prepared, the newest first; of one epoch the latest generation first.
    pub epochs: Vec<StoredEpoch>,
    /// Manifests that cannot be read, and those that name segments that are not there. The newest of all may be torn, and was then never prepared; an older
    /// one has been damaged since.
    pub unreadable: Vec<Unreadable>,
}

impl Stored {
    /// What the verdict of a recovery has to know.
    pub fn prepared(&self) -> Vec<Prepared> {
        let facts = |stored: &StoredEpoch| Prepared {
            epoch: stored.id.epoch,
            generation: stored.id.generation,
            manifest: stored.hash,
            last: stored.manifest.contents.ended,
        };
        self.epochs.iter().map(facts).collect()
    }

    /// The epoch that a verdict is about.
    pub fn of(&self, prepared: &Prepared) -> Option<&StoredEpoch> {
        let id = ManifestId { epoch: prepared.epoch, generation: prepared.generation };
        self.epochs.iter().find(|stored| stored.id == id && stored.hash == prepared.manifest)
    }

    /// The epoch that a decision is about.
    pub fn decided(&self, decision: &Decision) -> Option<&StoredEpoch> {
        self.epochs.iter().find(|stored| stored.id.epoch == decision.epoch && stored.hash == decision.manifest)
    }
}

/// What became of taking a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours.
    Ours(Generation),
    /// There is a later one than the one that it should follow.
    Overtaken(Generation),
}

/// What an epoch has changed.
#[derive(Debug, Default)]
pub struct EpochState {
    /// Changes of keyed states. A state may come in several pieces.
    pub rows: Vec<StateRows>,
    /// States that are kept by partition, each whole. One that does not come is as it was.
    pub parts: Vec<StateParts>,
}

/// Changes of a keyed state.
#[derive(Debug)]
pub struct StateRows {
    /// The operator.
    pub uid: String,
    /// The state.
    pub name: String,
    /// Lists of rows, each as [`Rows::sorted`] gives them, from old to new.
    pub rows: Vec<Rows>,
}

/// A state that is kept by partition.
#[derive(Debug)]
pub struct StateParts {
    /// The operator.
    pub uid: String,
    /// The state.
    pub name: String,
    /// Each partition's id and bytes. No id comes twice.
    pub parts: Vec<(String, Vec<u8>)>,
}

impl Checkpoints {
    /// Opens a store; an empty one becomes this pipeline's.
    pub async fn open(storage: Arc<dyn Storage>, identity: Identity) -> Result<Checkpoints, StoreError> {
        Checkpoints::open_as(storage, identity, random()).await
    }

    /// The same for a process that had it open before: what it wrote then as this [`Self::writer`] is its own, also if it was never told that it succeeded.
    pub async fn open_as(storage: Arc<dyn Storage>, identity: Identity, writer: u64) -> Result<Checkpoints, StoreError> {
        let file = identify(&*storage, &identity).await?;
        let register = Register::open(storage.clone(), writer).await?;
        Ok(Checkpoints { storage, identity, incarnation: file.incarnation, register, current: Mutex::default(), lock: Mutex::new(None) })
    }

    /// Tells this life of the pipeline's name from others: names of Kafka transactions and of rows in databases are made of it.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Name and incarnation, as they stand in decisions.
    pub fn pipeline(&self) -> String {
        format!("{}.{}", self.identity.pipeline, self.incarnation)
    }

    /// Tells this process from others in the register.
    pub fn writer(&self) -> u64 {
        self.register.writer()
    }

    /// Whether a pipeline has begun here: there are epochs, or what the first one goes out from.
    pub async fn has_begun(&self) -> Result<bool, StoreError> {
        let has = self.register.now().await.decided.is_some() || !self.storage.list("manifests").await?.is_empty();
        Ok(has || self.storage.get(ADOPTED).await?.is_some())
    }

    /// The savepoint that the first epoch goes out from, where a process has adopted one and none has come to a decided epoch since.
    pub fn adopted(&self) -> Option<Snapshot> {
        let current = self.current();
        let adopted = current.adopted.clone().filter(|_| current.lineage.is_empty());
        adopted.map(|manifest| Snapshot::new(self.storage.clone(), manifest, Arc::new(())))
    }

    /// Where the store is, for messages.
    pub fn place(&self) -> String {
        self.storage.describe("")
    }

    /// Becomes the owner: from now on nothing that an earlier one writes counts.
    pub async fn take_generation(&self, take: Take, take_over: TakeOver) -> Result<Taken, StoreError> {
        match self.storage.lock() {
            Ok(lock) => *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock,
            Err(_) if take_over == TakeOver::Yes => {}
            Err(error) => return Err(error),
        }
        let taken = self.register.take(take).await?;
        if let Taken::Ours(generation) = taken {
            self.current().generation = generation;
        }
        Ok(taken)
    }

    /// What the register says.
    pub async fn progress(&self) -> Progress {
        self.register.now().await
    }

    /// What there is. To be asked after [`Self::take_generation`]: only then does nobody else decide anything here.
    pub async fn stored(&self) -> Result<Stored, StoreError> {
        stored(&*self.storage, &self.incarnation, self.register.now().await).await
    }

    /// Goes on from a prepared epoch, or from nothing. Manifests of earlier generations that do not lead to it are removed, with what only those name and what
    /// dead generations have left.
    pub async fn resume(&self, stored: &Stored, from: Option<&StoredEpoch>) -> Result<(), StoreError> {
        let mut lineage: Vec<Arc<Manifest>> = Vec::new();
        let mut next = from.map(|epoch| epoch.id);
        while let Some(epoch) = next.and_then(|id| stored.epochs.iter().find(|epoch| epoch.id == id)) {
            lineage.push(epoch.manifest.clone());
            next = epoch.manifest.parent;
        }
        lineage.reverse();
        let adopted = match from {
            None => self.read_adopted().await?,
            Some(_) => None,
        };
        let kept: Vec<ManifestId> = lineage.iter().map(|manifest| manifest.id).collect();
        let generation = {
            let mut current = self.current();
            let generation = current.generation;
            *current = Current { generation, lineage, adopted, ..Current::default() };
            generation
        };
        let ids = stored.epochs.iter().map(|epoch| epoch.id).chain(stored.unreadable.iter().map(|unreadable| unreadable.id));
        // Only of earlier ones: a later owner may be at work already.
        let discarded = ids.filter(|id| !kept.contains(id) && id.generation < generation).map(|id| id.file_name());
        self.storage.delete(&discarded.collect::<Vec<_>>()).await?;
        self.sweep().await
    }

    async fn read_adopted(&self) -> Result<Option<Arc<Manifest>>, StoreError> {
        let Some(bytes) = self.storage.get(ADOPTED).await? else { return Ok(None) };
        let (manifest, _) = sealed::read(&bytes).map_err(|what| StoreError::damaged(self.storage.describe(ADOPTED), what))?;
        Ok(Some(Arc::new(manifest)))
    }

    /// The state of a prepared epoch.
    pub fn snapshot(&self, prepared: &StoredEpoch) -> Snapshot {
        let pin = Arc::new(());
        self.current().pins.push((Arc::downgrade(&pin), prepared.manifest.clone()));
        Snapshot::new(self.storage.clone(), prepared.manifest.clone(), pin)
    }

    /// Prepares an epoch: on return its state and its manifest are durable.
    pub async fn write_epoch(&self, epoch: Epoch, mut contents: Contents, state: EpochState) -> Result<StoredEpoch, StoreError> {
        let (generation, parent, replacement) = {
            let current = self.current();
            (current.generation, current.lineage.last().or(current.adopted.as_ref()).cloned(), current.replacement.clone())
        };
        let before = parent.as_ref().map_or(0, |parent| parent.id.epoch);
        if generation == 0 || epoch <= before {
            return Err(StoreError::internal(format!("epoch {epoch} of generation {generation} cannot follow epoch {before}")));
        }
        fill_in_since(&mut contents, epoch, parent.as_deref());
        let written = self.write_state(epoch, &contents, &state).await?;
        drop(state);

        let mut segments = parent.as_ref().map_or_else(Vec::new, |parent| parent.segments.clone());
        let adopted = replacement.is_some_and(|replacement| replacement.apply(&mut segments));
        segments.extend(written);
        let manifest = Manifest {
            format: FORMAT,
            version: self.identity.version.clone(),
            pipeline: self.identity.pipeline.clone(),
            incarnation: self.incarnation.clone(),
            id: ManifestId { epoch, generation },
            parent: parent.map(|parent| parent.id).filter(|id| id.epoch > 0),
            segments,
            contents,
        };
        let (bytes, hash) = sealed::write(&manifest)?;
        failpoint::hit("manifest.before");
        let name = manifest.id.file_name();
        if self.storage.put_new(&name, bytes).await? == Created::Exists {
            return Err(StoreError::internal(format!("{} was written before", self.storage.describe(&name))));
        }
        failpoint::hit("manifest.after");
        let manifest = Arc::new(manifest);
        let mut current = self.current();
        if adopted {
            failpoint::hit("compact.adopted");
            current.replacement = None;
        }
        current.lineage.push(manifest.clone());
        Ok(StoredEpoch { id: manifest.id, hash, manifest })
    }

    /// Decides a prepared epoch here, where neither Kafka nor a database does: its output counts from now on.
    pub async fn decide_local(&self, prepared: &StoredEpoch) -> Result<Decision, StoreError> {
        let decision = self.decision(prepared);
        failpoint::hit("decide.before");
        self.register.change(|progress| progress.decided = Some(decision.clone())).await?;
        failpoint::hit("decide.after");
        Ok(decision)
    }

    /// The decision for a prepared epoch, to be written down by whoever decides.
    pub fn decision(&self, prepared: &StoredEpoch) -> Decision {
        Decision { pipeline: self.pipeline(), epoch: prepared.id.epoch, generation: prepared.id.generation, manifest: prepared.hash }
    }

    /// Writes down that every sink has made an epoch visible.
    pub async fn record_commit(&self, decision: &Decision) -> Result<(), StoreError> {
        failpoint::hit("commit.before");
        let newer = |progress: &Progress| progress.decided.as_ref().is_some_and(|decided| decided.epoch > decision.epoch);
        let change = |progress: &mut Progress| {
            progress.committed = progress.committed.max(decision.epoch);
            if !newer(progress) {
                progress.decided = Some(decision.clone());
            }
        };
        self.register.change(change).await?;
        failpoint::hit("commit.after");
        self.lock_again();
        Ok(())
    }

    /// Who has taken over from a process that still held the lock gets it when that one has ended: whoever starts then finds it locked.
    fn lock_again(&self) {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = self.storage.lock().unwrap_or(None);
        }
    }

    /// Writes down that the pipeline has come to its end: the next start has nothing to do.
    pub async fn record_end(&self) -> Result<(), StoreError> {
        self.register.change(|progress| progress.ended = true).await
    }

    /// Who has taken the pipeline over last, read anew.
    pub async fn newest_generation(&self) -> Result<Generation, StoreError> {
        Ok(progress::newest(&*self.storage).await?.generation)
    }

    /// What the register says, read anew.
    pub async fn newest_progress(&self) -> Result<Progress, StoreError> {
        progress::newest(&*self.storage).await
    }

    /// Fails if another generation has taken over.
    pub async fn check_owner(&self) -> Result<(), StoreError> {
        self.register.check().await
    }

    pub(super) fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a segment of this generation.
    pub(super) fn segment_name(&self, first: Epoch, last: Epoch) -> String {
        let mut current = self.current();
        current.number += 1;
        format!("segments/{first:012}-{last:012}-{}-{}", current.generation, current.number)
    }

    /// The segment of an epoch. `None`: nothing has changed.
    async fn write_state(&self, epoch: Epoch, contents: &Contents, state: &EpochState) -> Result<Option<SegmentEntry>, StoreError> {
        let sections = sections(contents, state)?;
        if sections.is_empty() {
            return Ok(None);
        }
        let mut writer = SegmentWriter::create(&*self.storage, self.segment_name(epoch, epoch)).await?;
        for ((uid, name), section) in sections {
            match section {
                Section::Rows(lists) => {
                    writer.section(uid, name, SectionKind::Keyed);
                    push_rows(&lists, &mut writer).await?;
                }
                Section::Parts(parts) => {
                    writer.section(uid, name, SectionKind::Unkeyed);
                    for (id, bytes) in parts {
                        writer.push(Row { address: id.as_bytes(), key_len: 0, change: Change::Put(bytes) });
                    }
                }
            }
            writer.drain().await?;
        }
        let file = writer.finish().await?;
        Ok(Some(SegmentEntry { name: file.name, bytes: file.bytes, hash: file.hash, rows: file.rows, first: epoch, last: epoch }))
    }
}

/// Reads or creates `identity`.
async fn identify(storage: &dyn Storage, identity: &Identity) -> Result<IdentityFile, StoreError> {
    let place = storage.describe(IDENTITY);
    let incarnation = format!("{:016x}", random());
    let ours = IdentityFile { format: FORMAT, pipeline: identity.pipeline.clone(), incarnation, version: identity.version.clone() };
    let found = match storage.get(IDENTITY).await? {
        Some(bytes) => bytes,
        None => {
            if !storage.list("manifests").await?.is_empty() {
                return Err(StoreError::damaged(place, "it does not exist, though there are manifests beside it"));
            }
            let (bytes, _) = sealed::write(&ours)?;
            if storage.put_new(IDENTITY, bytes).await? == Created::Yes {
                failpoint::hit("open.identified");
                return Ok(ours);
            }
            storage.get(IDENTITY).await?.ok_or_else(|| StoreError::damaged(place.clone(), "it has just vanished"))?
        }
    };
    sealed::check_format(&place, &found, FORMAT)?;
    let (file, _): (IdentityFile, _) = sealed::read(&found).map_err(|what| StoreError::damaged(place, what))?;
    if file.pipeline != identity.pipeline {
        let message = format!(
            "{} holds the checkpoints of the pipeline `{}`, and this one is `{}`",
            storage.describe(""),
            file.pipeline,
            identity.pipeline
        );
        return Err(StoreError::user(message, "give each pipeline a folder of its own, or give this one its old name"));
    }
    Ok(file)
}

/// The manifests of an incarnation in a store.
pub(super) async fn stored(storage: &dyn Storage, incarnation: &str, progress: Progress) -> Result<Stored, StoreError> {
    let mut ids: Vec<ManifestId> =
        storage.list("manifests").await?.iter().filter_map(|file| ManifestId::of_file_name(&file.name)).collect();
    ids.sort_by(|a, b| b.cmp(a));
    let mut stored = Stored { progress, epochs: Vec::new(), unreadable: Vec::new() };
    let mut manifests = Vec::new();
    for id in ids {
        // Gone: an earlier owner that has not found out yet may collect its garbage.
        let Some(bytes) = storage.get(&id.file_name()).await? else { continue };
        // Not one of those that cannot be read: those may be removed.
        sealed::check_format(&storage.describe(&id.file_name()), &bytes, FORMAT)?;
        manifests.push((id, sealed::read::<Manifest>(&bytes)));
    }
    // After the manifests: what they name was there before them.
    let segments: BTreeMap<String, u64> = storage.list("segments").await?.into_iter().map(|file| (file.name, file.bytes)).collect();
    for (id, read) in manifests {
        let missing = |manifest: &Manifest| {
            let mut entries = manifest.segments.iter();
            entries.find(|entry| segments.get(&entry.name) != Some(&entry.bytes)).map(|entry| entry.name.clone())
        };
        let place = storage.describe(&id.file_name());
        let message = match read {
            Err(what) => format!("{place} is damaged: {what}"),
            Ok((manifest, _)) if manifest.id != id || manifest.incarnation != incarnation => {
                format!("{place} is a copy of another manifest")
            }
            Ok((manifest, hash)) => match missing(&manifest) {
                Some(name) => format!("{place} names {}, which is missing or cut off", storage.describe(&name)),
                None => {
                    stored.epochs.push(StoredEpoch { id, hash, manifest: Arc::new(manifest) });
                    continue;
                }
            },
        };
        stored.unreadable.push(Unreadable { id, message });
    }
    Ok(stored)
}

/// What there is in a store, for those who only look: no lock, no generation.
pub async fn look(storage: &dyn Storage) -> Result<Stored, StoreError> {
    let place = storage.describe(IDENTITY);
    let none =
        || StoreError::user(format!("{} is no checkpoint store: there is no {IDENTITY} in it", storage.describe("")), "check the path");
    let bytes = storage.get(IDENTITY).await?.ok_or_else(none)?;
    sealed::check_format(&place, &bytes, FORMAT)?;
    let (file, _): (IdentityFile, _) = sealed::read(&bytes).map_err(|what| StoreError::damaged(place, what))?;
    stored(storage, &file.incarnation, progress::newest(storage).await?).await
}

/// States go on that the parent had, others begin.
fn fill_in_since(contents: &mut Contents, epoch: Epoch, parent: Option<&Manifest>) {
    for operator in &mut contents.operators {
        for state in &mut operator.states {
            let before =
                parent.and_then(|parent| parent.state(&operator.uid, &state.name)).filter(|before| before.unkeyed == state.unkeyed);
            state.since = match before {
                Some(before) if state.since != NOW => before.since,
                _ => epoch,
            };
        }
    }
}

/// What a section is made of.
enum Section<'a> {
    Rows(Vec<&'a Rows>),
    Parts(BTreeMap<&'a str, &'a [u8]>),
}

/// Sections in order of (uid, name); each belongs to a state that the manifest lists.
fn sections<'a>(contents: &Contents, state: &'a EpochState) -> Result<BTreeMap<(&'a str, &'a str), Section<'a>>, StoreError> {
    let mut sections: BTreeMap<(&str, &str), Section<'_>> = BTreeMap::new();
    let wrong = |uid: &str, name: &str| StoreError::internal(format!("`{name}` of `{uid}` is written but is not in the manifest"));
    for StateRows { uid, name, rows } in &state.rows {
        contents.state(uid, name).filter(|state| !state.unkeyed).ok_or_else(|| wrong(uid, name))?;
        let section = sections.entry((uid, name)).or_insert_with(|| Section::Rows(Vec::new()));
        if let Section::Rows(lists) = section {
            lists.extend(rows.iter().filter(|rows| !rows.is_empty()));
        }
    }
    sections.retain(|_, section| !matches!(section, Section::Rows(lists) if lists.is_empty()));
    for StateParts { uid, name, parts } in &state.parts {
        contents.state(uid, name).filter(|state| state.unkeyed).ok_or_else(|| wrong(uid, name))?;
        let section = sections.entry((uid, name)).or_insert_with(|| Section::Parts(BTreeMap::new()));
        if let Section::Parts(all) = section {
            all.extend(parts.iter().map(|(id, bytes)| (id.as_str(), bytes.as_slice())));
        }
    }
    Ok(sections)
}

/// Writes sorted lists as one.
async fn push_rows(lists: &[&Rows], writer: &mut SegmentWriter) -> Result<(), StoreError> {
    let mut order: Vec<(u32, u32)> = Vec::with_capacity(lists.iter().map(|rows| rows.len()).sum());
    for (list, rows) in (0..).zip(lists) {
        order.extend((0..rows.len() as u32).map(|row| (list, row)));
    }
    let row = |(list, row): (u32, u32)| lists[list as usize].get(row as usize);
    // Stable and quick with runs that are sorted: of one address, older before newer.
    order.sort_by(|a, b| row(*a).address.cmp(row(*b).address));
    let mut newest = Newest::default();
    let mut order = order.into_iter().peekable();
    while let Some(first) = order.peek().copied() {
        let of_address = std::iter::from_fn(|| order.next_if(|at| row(*at).address == row(first).address));
        newest.of_address(of_address.map(|at| (u64::from(at.0), row(at))), |row| writer.push(row));
        writer.drain().await?;
    }
    Ok(())
}

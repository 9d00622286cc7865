//! Checkpoint storage and folders of files, as far as they can go wrong.
//!
//! In a folder an object is written beside, synced, and then gets its name, if nothing has that name; then the folder is synced. Between
//! the two a reader sees it, and a dying machine may forget it. What is removed may likewise come back. Content that was not synced is
//! torn. Which of several entries survive is chance: folders keep no order.
//!
//! Objects are there, whole and durable, once the request has arrived.

use crate::plan::{Output, StoreKind};
use crate::random::Random;
use pelton_core::{Decision, Epoch, Generation};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a follower has staged for an epoch, or has made visible.
pub type Rows = Rc<Vec<Output>>;

/// State of the pipeline by source and key: how many rows, and their sum.
pub type State = BTreeMap<(u8, u8), (u32, u64)>;

/// What an object is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Generation(Generation),
    Segment(Epoch, Generation),
    Manifest(Epoch, Generation),
    Record(Epoch),
    /// Where taking over and deciding compete, if the store decides.
    Log(u64),
    /// Of a follower.
    Staged(usize, Epoch, Generation),
    Final(usize, Epoch),
}

/// What an object says.
#[derive(Clone, Debug)]
pub enum Content {
    Empty,
    Segment(Rc<State>),
    Manifest(Rc<Manifest>),
    Decision(Decision),
    /// In the log: this generation has taken over.
    Taken(Generation),
    Rows(Rows),
}

/// All of an epoch. `state` and `outputs` are what the segments and the staged files have to amount to; the driver does not restore from them.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub epoch: Epoch,
    pub generation: Generation,
    pub last: bool,
    pub positions: Vec<usize>,
    pub ended: Vec<bool>,
    /// A base, and what has changed since, in this order.
    pub segments: Vec<Name>,
    /// The same for every sink.
    pub outputs: Rows,
    /// Hash of the manifest of the epoch before; 0: none.
    pub parent: u64,
    pub hash: u64,
    pub state: State,
}

#[derive(Clone, Debug)]
struct File {
    content: Content,
    /// The content is durable.
    synced: bool,
    /// The entry is durable.
    named: bool,
    torn: bool,
}

/// A folder, or a bucket.
#[derive(Clone, Debug)]
pub struct Store {
    pub kind: StoreKind,
    files: BTreeMap<Name, File>,
    /// Removed, but not for good.
    removed: Vec<Removed>,
}

#[derive(Clone, Debug)]
struct Removed {
    name: Name,
    file: File,
    renamed: Option<Name>,
}

impl Store {
    pub fn new(kind: StoreKind) -> Store {
        Store { kind, files: BTreeMap::new(), removed: Vec::new() }
    }

    /// Creates an object if nothing has its name. In a folder it has then still to be [`Store::sync`]ed.
    pub fn create(&mut self, name: Name, content: Content, synced: bool) -> bool {
        let durable = self.kind == StoreKind::Objects;
        let absent = !self.files.contains_key(&name);
        if absent {
            self.files.insert(name, File { content, synced: synced || durable, named: durable, torn: false });
        }
        absent
    }

    /// Gives an object its final name, if it has not got it yet. False: there is nothing of either name.
    pub fn rename(&mut self, from: Name, to: Name) -> bool {
        if !self.files.contains_key(&to)
            && let Some(file) = self.files.remove(&from)
        {
            self.files.insert(to, File { named: false, ..file.clone() });
            self.removed.push(Removed { name: from, file, renamed: Some(to) });
        }
        self.files.contains_key(&to)
    }

    /// Makes entries durable. Gives the decisions among them, in order.
    pub fn sync(&mut self) -> Vec<Decision> {
        self.removed.clear();
        let fresh = self.files.values_mut().filter(|file| !file.named);
        fresh.fold(Vec::new(), |mut decisions, file| {
            file.named = true;
            if let Content::Decision(decision) = &file.content {
                decisions.push(decision.clone());
            }
            decisions
        })
    }

    pub fn delete(&mut self, which: impl Fn(&Store, Name) -> bool) {
        let names: Vec<Name> = self.files.keys().copied().filter(|name| which(self, *name)).collect();
        for name in names {
            if let Some(file) = self.files.remove(&name) {
                self.removed.push(Removed { name, file, renamed: None });
            }
        }
        if self.kind == StoreKind::Objects {
            self.removed.clear();
        }
    }

    /// The machine dies. Gives the decisions that survived by chance.
    pub fn lose_unsynced(&mut self, random: &mut Random) -> Vec<Decision> {
        if self.kind == StoreKind::Objects {
            return Vec::new();
        }
        for removed in std::mem::take(&mut self.removed) {
            let comes_back = random.chance(500);
            match removed.renamed {
                // A rename has happened or not; there are never both names.
                Some(to) if comes_back => drop(self.files.remove(&to)),
                Some(to) => self.files.get_mut(&to).expect("what was renamed").named = true,
                None => {}
            }
            if comes_back {
                self.files.entry(removed.name).or_insert(removed.file);
            }
        }
        self.files.retain(|_, file| file.named || random.chance(500));
        for file in self.files.values_mut() {
            file.torn |= !file.synced && random.chance(500);
        }
        self.sync()
    }

    /// An object whose checksum is right.
    pub fn read(&self, name: Name) -> Option<&Content> {
        self.files.get(&name).filter(|file| !file.torn).map(|file| &file.content)
    }

    /// Whether an object would survive the machine.
    pub fn durable(&self, name: Name) -> bool {
        self.files.get(&name).is_some_and(|file| file.synced && file.named && !file.torn)
    }

    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.files.keys().copied()
    }

    /// Manifests whose segments are all there.
    pub fn prepared(&self) -> impl Iterator<Item = &Rc<Manifest>> {
        self.manifests().filter(|manifest| manifest.segments.iter().all(|name| self.read(*name).is_some()))
    }

    /// All manifests.
    pub fn manifests(&self) -> impl Iterator<Item = &Rc<Manifest>> {
        self.files.range(Name::Manifest(0, 0)..Name::Record(0)).filter(|(_, file)| !file.torn).filter_map(|(_, file)| match &file.content {
            Content::Manifest(manifest) => Some(manifest),
            _ => None,
        })
    }

    /// The newest commit record.
    pub fn recorded(&self) -> Epoch {
        self.names().filter_map(|name| if let Name::Record(epoch) = name { Some(epoch) } else { None }).max().unwrap_or(0)
    }

    /// The newest generation.
    pub fn generation(&self) -> Generation {
        self.names().filter_map(|name| if let Name::Generation(generation) = name { Some(generation) } else { None }).max().unwrap_or(0)
    }

    /// The next name to compete for, the generation that took over last, and the last decision.
    pub fn log(&self) -> (u64, Generation, Option<Decision>) {
        let mut log = (0, 0, None);
        for (name, file) in self.files.range(Name::Log(0)..Name::Staged(0, 0, 0)) {
            let Name::Log(at) = name else { continue };
            log.0 = at + 1;
            match &file.content {
                Content::Decision(decision) => log.2 = Some(decision.clone()),
                Content::Taken(generation) => log.1 = *generation,
                _ => {}
            }
        }
        log
    }
}

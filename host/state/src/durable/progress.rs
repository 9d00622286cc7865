//! How far a pipeline has come, and who owns it: a register that is changed by creating files.
//!
//! `progress/<slot, 12 digits>` are sealed JSON files. That of the highest slot is the register; whoever changes it creates the next slot, and of several who try
//! one wins. Taking a generation is such a change as well, and the file that does so is never removed: an earlier owner that is still
//! alive would have to create just that slot next, so it finds out before anything that it writes counts. Other slots are removed once they are superseded.

use super::checkpoints::Taken;
use super::storage::{Created, Storage};
use super::{StoreError, sealed};
use pelton_core::checkpoint::Take;
use pelton_core::{Decision, Epoch, Generation, failpoint};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

const FOLDER: &str = "progress";
/// Superseded slots are removed so many at a time: each removal costs a sync of the folder.
const REMOVED_AT_ONCE: usize = 16;

/// What the register says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of the file.
    pub slot: u64,
    /// The slot in which the generation was taken.
    pub taken_at: u64,
    /// Tells those who write the same from each other.
    #[serde(with = "sealed::hex")]
    pub writer: u64,
    /// The owner.
    pub generation: Generation,
    /// The newest decision that this store knows of. Where something else decides, that may have decided one epoch more.
    pub decided: Option<Decision>,
    /// Every sink has made the epochs up to this one visible.
    pub committed: Epoch,
    /// The last epoch is committed and there will be no other.
    pub ended: bool,
}

/// The register.
pub struct Register {
    storage: Arc<dyn Storage>,
    writer: u64,
    now: tokio::sync::Mutex<Progress>,
    /// Slots that are still to be removed.
    superseded: Mutex<Vec<String>>,
}

impl Register {
    /// Reads it.
    pub async fn open(storage: Arc<dyn Storage>, writer: u64) -> Result<Register, StoreError> {
        let now = newest(&*storage).await?;
        Ok(Register { storage, writer, now: tokio::sync::Mutex::new(now), superseded: Mutex::default() })
    }

    /// Who writes here.
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// What it says, as far as is known here.
    pub async fn now(&self) -> Progress {
        self.now.lock().await.clone()
    }

    /// Takes a generation. Whatever others do at the same time, no two get the same.
    pub async fn take(&self, take: Take) -> Result<Taken, StoreError> {
        let mut now = self.now.lock().await;
        loop {
            let generation = match take {
                Take::Above(least) => now.generation.max(least) + 1,
                // What this process has taken without being told so overtakes nobody.
                Take::After(own) if now.generation > own && now.writer != self.writer => return Ok(Taken::Overtaken(now.generation)),
                Take::After(own) => now.generation.max(own) + 1,
            };
            let slot = now.slot + 1;
            let next = Progress { slot, taken_at: slot, writer: self.writer, generation, ..now.clone() };
            failpoint::hit("take.before");
            if self.create(&next).await? == Created::Yes {
                failpoint::hit("take.after");
                let superseded: Vec<String> = (now.taken_at + 1..=now.slot).map(name).collect();
                *now = next;
                // It is taken, whatever becomes of what it supersedes.
                if self.storage.delete(&superseded).await.is_err() {
                    self.superseded.lock().unwrap_or_else(PoisonError::into_inner).extend(superseded);
                }
                return Ok(Taken::Ours(generation));
            }
            // Somebody else has decided or taken in this moment.
            *now = newest(&*self.storage).await?;
        }
    }

    /// Changes it, if it is still owned by the generation that was taken here.
    pub async fn change(&self, change: impl Fn(&mut Progress)) -> Result<(), StoreError> {
        let mut now = self.now.lock().await;
        if now.writer != self.writer {
            return Err(StoreError::internal("progress is written before a generation is taken"));
        }
        loop {
            let mut next = Progress { slot: now.slot + 1, ..now.clone() };
            change(&mut next);
            if self.create(&next).await? == Created::Yes {
                let superseded = std::mem::replace(&mut *now, next);
                drop(now);
                return if superseded.slot == superseded.taken_at { Ok(()) } else { self.remove(superseded.slot).await };
            }
            match read(&*self.storage, &name(next.slot)).await? {
                // A change before this one has failed and yet succeeded.
                Some(found) if found.writer == self.writer => *now = found,
                other => return Err(self.fenced(other.as_ref())),
            }
        }
    }

    /// Removes a superseded slot, now or later.
    async fn remove(&self, slot: u64) -> Result<(), StoreError> {
        let names = {
            let mut superseded = self.superseded.lock().unwrap_or_else(PoisonError::into_inner);
            superseded.push(name(slot));
            if superseded.len() < REMOVED_AT_ONCE { Vec::new() } else { std::mem::take(&mut *superseded) }
        };
        self.storage.delete(&names).await
    }

    /// Fails if another has taken the pipeline over.
    pub async fn check(&self) -> Result<(), StoreError> {
        let slot = self.now.lock().await.slot + 1;
        match read(&*self.storage, &name(slot)).await? {
            Some(found) if found.writer != self.writer => Err(self.fenced(Some(&found))),
            _ => Ok(()),
        }
    }

    fn fenced(&self, by: Option<&Progress>) -> StoreError {
        let by = by.map_or("another".into(), |found| format!("generation {}", found.generation));
        StoreError::Fenced { message: format!("fenced: {by} has taken over {}", self.storage.describe("")) }
    }

    async fn create(&self, progress: &Progress) -> Result<Created, StoreError> {
        self.storage.put_new(&name(progress.slot), sealed::write(progress)?.0).await
    }
}

/// What the register says, for those who only look.
pub async fn newest(storage: &dyn Storage) -> Result<Progress, StoreError> {
    loop {
        let listed = storage.list(FOLDER).await?;
        let Some(newest) = listed.iter().rev().find(|file| name_is_ours(&file.name)) else { return Ok(Progress::default()) };
        // It may be superseded and removed between the two calls.
        if let Some(found) = read(storage, &newest.name).await? {
            return Ok(found);
        }
    }
}

async fn read(storage: &dyn Storage, name: &str) -> Result<Option<Progress>, StoreError> {
    let Some(bytes) = storage.get(name).await? else { return Ok(None) };
    let (progress, _): (Progress, _) = sealed::read(&bytes).map_err(|what| StoreError::damaged(storage.describe(name), what))?;
    if self::name(progress.slot) != name {
        return Err(StoreError::damaged(storage.describe(name), "it is a copy of another slot"));
    }
    Ok(Some(progress))
}

fn name(slot: u64) -> String {
    format!("{FOLDER}/{slot:012}")
}

fn name_is_ours(name: &str) -> bool {
    name.strip_prefix("progress/").is_some_and(|slot| slot.len() == 12 && slot.bytes().all(|byte| byte.is_ascii_digit()))
}

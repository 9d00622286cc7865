//! Every call to the storage fails once, before or after it has done its work. Nothing that was decided is lost, and what failed can be tried again.

use super::crash::{changed, model};
use super::{changes, contents, identity, memory, state, try_read, wait};
use crate::durable::storage::{Created, Listed, LocalFolder, NewFile};
use crate::durable::{Checkpoints, Storage, StoreError, TakeOver};
use async_trait::async_trait;
use bytes::Bytes;
use pelton_core::checkpoint::Take;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A storage of which one call fails.
struct Faulty {
    inner: Arc<dyn Storage>,
    fault: Arc<Fault>,
}

struct Fault {
    /// Calls until then.
    left: AtomicI64,
    /// The call has done its work when it fails, as when an answer is lost.
    after: bool,
}

impl Fault {
    async fn wrap<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let fails = self.left.fetch_sub(1, Ordering::Relaxed) == 0;
        if fails && !self.after {
            return Err(StoreError::external("the storage is away"));
        }
        let result = call.await;
        if fails { Err(StoreError::external("the storage does not answer")) } else { result }
    }
}

struct FaultyFile {
    inner: Box<dyn NewFile>,
    fault: Arc<Fault>,
}

#[async_trait]
impl NewFile for FaultyFile {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.fault.wrap(self.inner.write(bytes)).await
    }

    async fn finish(self: Box<Self>) -> Result<Created, StoreError> {
        self.fault.wrap(self.inner.finish()).await
    }
}

#[async_trait]
impl Storage for Faulty {
    fn describe(&self, name: &str) -> String {
        self.inner.describe(name)
    }

    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.fault.wrap(self.inner.put_new(name, bytes)).await
    }

    async fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError> {
        let inner = self.fault.wrap(self.inner.create(name)).await?;
        Ok(Box::new(FaultyFile { inner, fault: self.fault.clone() }))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.fault.wrap(self.inner.get(name)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.fault.wrap(self.inner.get_range(name, range)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.fault.wrap(self.inner.list(folder)).await
    }

    async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        self.fault.wrap(self.inner.delete(names)).await
    }
}

/// Opens a store and goes on from what is decided.
async fn start(storage: &Arc<dyn Storage>) -> Result<(Checkpoints, u64), StoreError> {
    let checkpoints = Checkpoints::open(storage.clone(), identity("p")).await?;
    checkpoints.take_generation(Take::Above(0), TakeOver::No).await?;
    let stored = checkpoints.stored().await?;
    let decided = stored.progress.decided.as_ref().map(|decision| stored.decided(decision).expect("a decided epoch is never lost"));
    checkpoints.resume(&stored, decided).await?;
    let epoch = decided.map_or(0, |decided| decided.id.epoch);
    if let Some(decided) = decided {
        assert_eq!(try_read(&checkpoints.snapshot(decided), 0..256).await?, model(epoch));
    }
    Ok((checkpoints, epoch))
}

/// Epochs from one start to another; each that was decided is counted. A register that fails is asked again.
async fn live(storage: &Arc<dyn Storage>, decided: &mut u64) -> Result<(), StoreError> {
    let (checkpoints, from) = start(storage).await?;
    for epoch in from + 1..=from + 5 {
        let written = checkpoints.write_epoch(epoch, contents(), state(vec![changes(&changed(epoch))], epoch)).await?;
        let decision = match checkpoints.decide_local(&written).await {
            Err(error) if error.is_transient() => checkpoints.decide_local(&written).await?,
            decision => decision?,
        };
        *decided = epoch;
        if checkpoints.record_commit(&decision).await.is_err() {
            checkpoints.record_commit(&decision).await?;
        }
        // Garbage and merges may wait.
        let _ = checkpoints.collect(epoch.saturating_sub(1)).await;
        let _ = checkpoints.compact(&written).await;
    }
    Ok(())
}

#[test]
fn any_call_may_fail() {
    for after in [false, true] {
        let mut tried = 0;
        for left in 0.. {
            let inner = memory();
            let fault = Arc::new(Fault { left: AtomicI64::new(left), after });
            let faulty: Arc<dyn Storage> = Arc::new(Faulty { inner: inner.clone(), fault: fault.clone() });
            wait(async {
                let mut decided = 0;
                for _ in 0..2 {
                    if let Err(error) = live(&faulty, &mut decided).await {
                        assert!(error.is_transient(), "call {left}: {error}");
                    }
                }
                let (_, from) = start(&inner).await.expect("the storage is back");
                assert!(from >= decided, "call {left}: {from} after {decided}");
            });
            tried += 1;
            if fault.left.load(Ordering::Relaxed) >= 0 {
                break;
            }
        }
        println!("{tried} calls failed, after: {after}");
        assert!(tried > 100);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    wait(async {
        // A folder below a file.
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("file"), "").expect("writes");
        let place = folder.path().join("file/store");
        let error = Checkpoints::open(Arc::new(LocalFolder::new(&place)), identity("p")).await.err().expect("is no folder");
        assert!(error.to_string().contains(&place.display().to_string()), "{error}");
        assert_eq!(error.help(), Some("check the folder of the checkpoint store"));
        // A full disk: every write to this device fails so.
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = StoreError::of_file("write", "DIR/segments/1", &full);
        assert_eq!(error.to_string(), "cannot write DIR/segments/1: no storage space");
        assert!(!error.is_transient() && error.help().is_some_and(|help| help.starts_with("free space")));
    });
}

//! The driver between a task, a store and a decider that the test plays.

use super::super::overlay::Overlay;
use super::*;
use pelton_core::checkpoint::{Life, Settings};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Everything is durable at once, but a savepoint when the test says so.
struct Store {
    copied: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

#[async_trait::async_trait]
impl Keep for Store {
    async fn persist(&mut self, epoch: Epoch, _: bool, _: Vec<OperatorContents>) -> Result<Kept, Failure> {
        Ok(Kept { manifest: epoch, bytes: 0 })
    }

    async fn record(&mut self, _: Epoch) -> Result<(), Failure> {
        Ok(())
    }

    fn savepoint(&mut self, _: Epoch, _: &str) -> Copying {
        let copied = self.copied.lock().expect("no holder of this lock panics").take().expect("one savepoint is asked for");
        Box::pin(async move { copied.await.map_err(|_| Failure::Cancelled) })
    }

    fn cut(&mut self, _: &Armed, _: &[(usize, NewNode)]) {}

    async fn swapped(&mut self, _: &Armed) -> Versions {
        Versions::default()
    }

    async fn disarm(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn collect(&mut self, _: Epoch) -> Result<(), Failure> {
        Ok(())
    }
}

struct Decides;

#[async_trait::async_trait]
impl Decider for Decides {
    fn describe(&self) -> String {
        "a test".into()
    }

    async fn fence(&mut self) -> Result<Option<Decision>, ConnectError> {
        Ok(None)
    }

    async fn decide(&mut self, _: &Decision) -> Result<(), DecideError> {
        Ok(())
    }

    async fn check_owner(&mut self) -> Result<(), ConnectError> {
        Ok(())
    }
}

#[tokio::test]
async fn epochs_go_on_while_a_savepoint_is_made() {
    const A_MINUTE: Duration = Duration::from_secs(60);
    let (reporting, reports) = mpsc::unbounded_channel();
    let (barriers, mut wanted) = watch::channel(Barrier::default());
    let (progress, wishes) = CheckpointProgress::new();
    let progress = Arc::new(progress);
    let (decided, _seen) = watch::channel(0);
    let (release, copied) = oneshot::channel();
    let settings = Settings { interval: A_MINUTE, slow_after: A_MINUTE, retained: 1 };
    let mut driver = Driver {
        coordinator: Coordinator::new(Life { pipeline: "p".into(), generation: 1 }, settings, 1, 0, 0, Duration::ZERO),
        collector: Collector::new(vec![0], BTreeMap::new()),
        reports,
        barriers,
        decided,
        keep: Box::new(Store { copied: Arc::new(Mutex::new(Some(copied))) }),
        decider: Box::new(Decides),
        followers: Vec::new(),
        staged: HashMap::new(),
        nodes: Vec::new(),
        stop: watch::channel(StopMode::Run).1,
        progress: progress.clone(),
        wishes,
        granted: HashMap::new(),
        cutting: None,
        copies: JoinSet::new(),
    };
    let overlay = Arc::new(Overlay::new(0, progress.clone()));
    let report = move |epoch, last| TaskReport { task: 0, epoch, last, operators: Vec::new(), held: overlay.hold(0) };
    let tell = reporting.clone();
    let sealing = report.clone();
    let task = tokio::spawn(async move {
        while wanted.changed().await.is_ok() {
            let epoch = wanted.borrow().epoch;
            let _ = tell.send(sealing(epoch, false));
        }
    });
    let driving = tokio::spawn(async move { driver.run().await });
    let asking = progress.clone();
    let mut savepoint = tokio::spawn(async move { asking.checkpoint(Some("a place".into())).await });
    // So that it is the first to ask.
    tokio::task::yield_now().await;
    assert_eq!(progress.checkpoint(None).await.map(|epoch| epoch >= 1), Ok(true));
    // All of this comes while it is made, and neither it nor the end of the pipeline comes before it is.
    assert_eq!(progress.checkpoint(None).await.map(|epoch| epoch >= 2), Ok(true));
    assert_eq!(progress.checkpoint(None).await.map(|epoch| epoch >= 3), Ok(true));
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut savepoint).await.is_err());
    let last = progress.decided.load(Relaxed) + 1;
    reporting.send(report(last, true)).expect("the driver is there");
    while progress.decided.load(Relaxed) < last {
        tokio::task::yield_now().await;
    }
    assert!(!driving.is_finished());
    release.send(()).expect("it is awaited");
    assert_eq!(savepoint.await.expect("does not panic"), Ok(1));
    assert!(matches!(driving.await.expect("does not panic"), Ok(Outcome::Finished(_))));
    task.abort();
}

//! The threads of a run, and who ends it.
//!
//! Invariants: a task never leaves its thread; the failure that is told is the first one, or that of the checkpoints, if the tasks were cancelled because of it.

use super::task_plan::TaskPlan;
use super::{Prepared, Progress, StopMode};
use crate::checkpoint::driver::Outcome;
use crate::failure::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

impl Prepared {
    /// Runs to the end: of the input, of a stop, or at the first failure.
    pub async fn run(self) -> Result<Arc<Progress>, Failure> {
        let Prepared { progress, tasks, workers, stop_reading, stop, driver, io, cancel, .. } = self;
        let mut stops = stop.subscribe();
        let watcher = tokio::spawn(async move {
            // Readers are told to stop; why is asked when they have.
            let _ = stops.wait_for(|mode| *mode != StopMode::Run).await.map(drop);
            let _ = stop_reading.send(true);
            // Kept, so that readers see a value and not a closed channel.
            std::future::pending::<()>().await;
        });
        let cancelled = cancel.subscribe();
        let mut by_worker: Vec<Vec<TaskPlan>> = (0..workers).map(|_| Vec::new()).collect();
        for task in tasks {
            by_worker[task.worker].push(task);
        }
        let (results, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for (number, tasks) in by_worker.into_iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
            let (results, cancelled, cancel) = (results.clone(), cancelled.clone(), cancel.clone());
            threads.push(spawn_worker(number, move || work(tasks, cancelled, cancel, results))?);
        }
        drop(results);
        let driver_failed = Arc::new(AtomicBool::new(false));
        let driving = driver.map(|mut driver| {
            let (cancel, failed) = (cancel.clone(), driver_failed.clone());
            io.spawn(async move {
                let outcome = driver.run().await;
                if outcome.is_err() {
                    // Before the driver is gone, and with it what sinks share.
                    failed.store(true, Ordering::SeqCst);
                    let _ = cancel.send(true);
                }
                outcome
            })
        });
        let mut first = None;
        while let Some(result) = ended.recv().await {
            if let Err(failure) = result
                && !driver_failed.load(Ordering::SeqCst)
                && (first.is_none() || matches!(first, Some(Failure::Cancelled)))
            {
                first = Some(failure);
            }
        }
        for thread in threads {
            if thread.join().is_err() && first.is_none() {
                first = Some(Failure::Internal { transform: "worker".into(), message: "a worker's thread panicked".into() });
            }
        }
        watcher.abort();
        if let Some(driving) = driving {
            let outcome =
                driving.await.unwrap_or_else(|panic| Err(Failure::Internal { transform: "checkpoint".into(), message: panic.to_string() }));
            match outcome {
                // The tasks were cancelled because of it.
                Err(failure) if failure.is_fenced() || matches!(first, None | Some(Failure::Cancelled)) => first = Some(failure),
                Ok(Outcome::TasksGone) if first.is_none() => first = Some(Failure::Cancelled),
                _ => {}
            }
        }
        drop(stop);
        match first {
            Some(failure) => Err(failure),
            None => Ok(progress),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "workers are the threads that this module owns")]
fn spawn_worker(number: usize, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Failure> {
    // A host tells by the span which pipeline an event is of.
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || span.in_scope(work))
        .map_err(|error| Failure::Internal { transform: "worker".into(), message: format!("the system gives no thread: {error}") })
}

/// The body of a worker's thread.
fn work(
    tasks: Vec<TaskPlan>,
    cancelled: watch::Receiver<bool>,
    cancel: Arc<watch::Sender<bool>>,
    results: tokio::sync::mpsc::UnboundedSender<Result<(), Failure>>,
) {
    let executor = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(executor) => executor,
        Err(error) => {
            let _ = results.send(Err(Failure::Internal { transform: "worker".into(), message: error.to_string() }));
            let _ = cancel.send(true);
            return;
        }
    };
    let set = tokio::task::LocalSet::new();
    let handles: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let (cancelled, cancel, results) = (cancelled.clone(), cancel.clone(), results.clone());
            set.spawn_local(async move {
                let name = task.graph.nodes[task.nodes[0]].name.clone();
                let run = tokio::task::spawn_local(task.run(cancelled));
                // A panic of ours ends the pipeline with a message, not the process.
                let result = run.await.unwrap_or_else(|panic| Err(Failure::Internal { transform: name, message: panic.to_string() }));
                if result.is_err() {
                    let _ = cancel.send(true);
                }
                let _ = results.send(result);
            })
        })
        .collect();
    set.block_on(&executor, async {
        for handle in handles {
            let _ = handle.await;
        }
    });
}

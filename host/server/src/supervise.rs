//! A pipeline from its start to its end: prepares it, runs it, and starts it again from its last checkpoint where a failure may pass.
//!
//! `pelton run` supervises one pipeline and shows on the terminal what happens; a host supervises many, each on a thread of its own. Both
//! are told by [`Event`]s.

use crate::ServerError;
use crate::control::{Control, Orders};
use crate::crashes::Crashes;
use crate::lives::{Fault, Life};
use crate::state::{Restarts, State};
use crate::swaps;
use crate::versions::Base;
use pelton_core::Epoch;
use pelton_core::swap::Versions;
use pelton_pipeline::{Graph, Node, Place};
use pelton_plugin::Plugin;
use pelton_runtime::swap::{component_of, guess};
use pelton_runtime::{Failure, Prepared, Progress, Resumed, RunOptions, StopMode};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A pipeline, and how it is to run.
pub struct Job {
    /// Its file, which swaps are on top of; `None`: it cannot be swapped.
    pub base: Option<Arc<Base>>,
    /// What it does, as the file says.
    pub graph: Graph,
    /// Of its providers, in their order.
    pub plugins: Vec<Arc<Plugin>>,
    /// The pipeline file, for messages.
    pub file: String,
    /// Relative paths in configs start here.
    pub base_dir: PathBuf,
    /// Tasks side by side.
    pub parallelism: usize,
    /// For connectors.
    pub io: tokio::runtime::Handle,
    /// Where its checkpoints are; `None`: it takes none.
    pub state: Option<State>,
    /// In tests.
    pub crashes: Option<Crashes>,
    /// What it is told while it runs.
    pub orders: Arc<Orders>,
    /// A socket by which it is told, besides.
    pub control: Option<Control>,
}

/// What happens to a supervised pipeline.
pub enum Event<'a> {
    /// A life begins: everything that can be checked without reading data has been.
    Began(&'a Arc<Progress>),
    /// The tasks of that life are gone.
    Over,
    /// It came to its end: of its input, or because it was told to stop.
    Finished { progress: &'a Progress, stopped: StopMode },
    /// It had come to its end before.
    HadEnded(Epoch),
    /// It failed, and goes on from its last checkpoint after a pause. The message says where in the file.
    Restarts { message: String, pause: Duration },
    /// It failed, and nothing more is tried. The message says where, and what to do.
    Failed(String),
    /// Its last epoch was copied.
    Savepoint { epoch: Epoch, place: &'a str },
}

/// Whoever is told what happens.
#[async_trait::async_trait(?Send)]
pub trait Watcher {
    /// Each event in its turn; the supervisor waits.
    async fn on(&mut self, event: Event<'_>);
}

/// How a pipeline ended.
#[derive(Debug)]
pub enum End {
    /// At the end of its input, or because it was told to stop.
    Well,
    /// By this failure.
    Failed(Failure),
}

/// How a life ended that was not well.
struct Over {
    failure: Failure,
    /// The last decided epoch.
    decided: Epoch,
    /// It failed in what a swap has changed that was not decided: the old version goes on.
    blames_swap: bool,
}

/// How a pipeline was supervised.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The last decided epoch.
    pub epochs: Epoch,
    /// In tests: what its lives were.
    pub lives: Option<String>,
}

/// So often a pipeline is loaded with other swaps until it is what its checkpoints say.
const LOADS: u32 = 3;

fn internal(message: &str) -> Failure {
    Failure::Internal { transform: "supervisor".into(), message: message.into() }
}

/// Until the pipeline is at its end.
pub async fn supervise(mut job: Job, watcher: &mut dyn Watcher) -> Result<Outcome, ServerError> {
    let lived = live(&mut job, watcher).await;
    job.orders.lives.end();
    let (end, epochs) = lived?;
    job.finish(&end, watcher).await?;
    Ok(Outcome { end, epochs, lives: job.crashes.map(|crashes| crashes.said(epochs)) })
}

/// One life after the other; gives how the last one ended, and the last decided epoch.
async fn live(job: &mut Job, watcher: &mut dyn Watcher) -> Result<(End, Epoch), ServerError> {
    let stop = job.orders.wanted();
    let mut restarts = Restarts::new();
    let (mut epochs, mut at_fault) = (0, None);
    let end = loop {
        let parallelism = job.next_life();
        let mut decided = 0;
        let prepared = job.prepare(parallelism).await;
        if let (Ok(Resumed::Run(prepared)), Some(crashes)) = (&prepared, &mut job.crashes) {
            crashes.resumes(prepared.resumed);
        }
        let failure = match prepared {
            Ok(Resumed::Ended(epoch)) => {
                watcher.on(Event::HadEnded(epoch)).await;
                break End::Well;
            }
            Ok(Resumed::Run(prepared)) => match job.run_once(*prepared, at_fault.take(), watcher).await? {
                Ok(last) => {
                    epochs = last;
                    break End::Well;
                }
                Err(Over { failure, decided: at, blames_swap }) => {
                    decided = at;
                    let transform = failure.transform().filter(|_| blames_swap);
                    at_fault = transform.map(|transform| Fault { transform: transform.into(), message: failure.to_string() });
                    failure
                }
            },
            Ok(Resumed::Otherwise(_)) => {
                Failure::Checkpoint { message: "the checkpoints name other swaps at each try".into(), refused: true }
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Cancelled) && job.crashes.is_some() {
            continue;
        }
        let pause = if job.state.is_some() && (failure.is_transient() || at_fault.is_some()) { restarts.next(decided) } else { None };
        let Some(pause) = pause.filter(|_| *stop.borrow() == StopMode::Run) else {
            watcher.on(Event::Failed(job.last_words(&failure))).await;
            break End::Failed(failure);
        };
        watcher.on(Event::Restarts { message: job.told(&failure), pause }).await;
        let mut stop = stop.clone();
        let stopped = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            _ = stop.wait_for(|mode| *mode != StopMode::Run) => true,
        };
        if stopped {
            watcher.on(Event::Failed(job.last_words(&failure))).await;
            break End::Failed(failure);
        }
    };
    Ok((end, epochs))
}

impl Job {
    /// Gives the parallelism of the next life.
    fn next_life(&mut self) -> usize {
        let (Some(crashes), Some(state)) = (&mut self.crashes, &mut self.state) else { return self.parallelism };
        let (counts, tasks) = crashes.next_life();
        crashes.set_backend(&mut self.graph.options.durable);
        (state.options.crashes, state.options.take_over) = (Some(counts), true);
        // Each life is a new process.
        state.options.generation = Default::default();
        tasks
    }

    /// A failure, with the place of its transform in the file.
    fn told(&self, failure: &Failure) -> String {
        let Some(name) = failure.unplaced() else { return failure.to_string() };
        // What a transform was made into has its name in front.
        let is_of = |node: &&Node| name.strip_prefix(node.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(node) = self.graph.nodes.iter().filter(is_of).max_by_key(|node| node.name.len()) else { return failure.to_string() };
        let Place { file, line, column } = node.place;
        let included = self.graph.files.get(file).filter(|_| file > 0);
        let file = included.map_or_else(|| self.file.clone(), |file| file.display().to_string());
        format!("{file}:{line}:{column}: {failure}")
    }

    /// The same, with what to do.
    fn last_words(&self, failure: &Failure) -> String {
        let help = failure.help().map(|help| format!("\n  help: {help}"));
        self.told(failure) + &help.unwrap_or_default()
    }

    async fn prepare(&mut self, parallelism: usize) -> Result<Resumed, Failure> {
        let options = RunOptions { file: self.file.clone(), base_dir: self.base_dir.clone(), parallelism, io: self.io.clone() };
        let Some(state) = &mut self.state else {
            return Ok(Resumed::Run(Box::new(pelton_runtime::prepare(self.graph.clone(), &self.plugins, options).await?)));
        };
        let Some(base) = self.base.clone() else {
            return pelton_runtime::resume(self.graph.clone(), &self.plugins, options, &state.options).await;
        };
        let place = state.options.place();
        state.options.file = base.file.clone();
        let found = if state.options.anew { Versions::default() } else { guess(&place).await };
        let (mut versions, dropped) = found.over(|transform| base.file.get(transform).cloned());
        // A deployment that took over in place says in its file what the swap has made.
        for one in dropped.iter().filter(|one| base.file.get(&one.transform) != Some(&one.version)) {
            tracing::warn!(
                transform = one.transform,
                epoch = one.since,
                "a swap of this transform does not hold any more: the file says something else now"
            );
        }
        let mut tries = 0;
        loop {
            let (graph, plugins) = self.load(&base, &versions, &place)?;
            let Some(state) = &mut self.state else { return Err(internal("the state is gone")) };
            state.options.versions = versions;
            match pelton_runtime::resume(graph, &plugins, options.clone(), &state.options).await? {
                Resumed::Otherwise(other) if tries < LOADS => versions = other,
                resumed => return Ok(resumed),
            }
            tries += 1;
        }
    }

    /// The pipeline with what swaps have made of it.
    fn load(&self, base: &Base, versions: &Versions, place: &str) -> Result<(Graph, Vec<Arc<Plugin>>), Failure> {
        if versions.replaced.is_empty() {
            return Ok((self.graph.clone(), self.plugins.clone()));
        }
        let here = tokio::runtime::Handle::current();
        let fetch = |digest: &str| here.block_on(component_of(place, digest));
        let loaded = tokio::task::block_in_place(|| base.load(versions, &fetch)).map_err(|error| Failure::Checkpoint {
            message: format!("the pipeline cannot be loaded as it was swapped last: {}\n  next: mend what is named, or change the transform in the file, which then counts", error.text()),
            refused: true,
        })?;
        let names: Vec<&str> = versions.replaced.iter().map(|one| one.transform.as_str()).collect();
        tracing::info!(
            transforms = names.join(", "),
            swaps = versions.swaps,
            "these transforms go on as they were swapped, not as the file has them"
        );
        // What tests have set stays.
        Ok((Graph { options: self.graph.options.clone(), ..loaded.graph }, loaded.plugins))
    }

    /// From the start to the end or to a failure; either comes with the last decided epoch.
    async fn run_once(
        &self,
        prepared: Prepared,
        at_fault: Option<Fault>,
        watcher: &mut dyn Watcher,
    ) -> Result<Result<Epoch, Over>, ServerError> {
        let (progress, stop, swapper) = (prepared.progress.clone(), prepared.stop.clone(), prepared.swapper.clone());
        let (mut wanted, stopper) = (self.orders.wanted(), stop.clone());
        let forward = tokio::spawn(async move {
            if let Ok(mode) = wanted.wait_for(|mode| *mode != StopMode::Run).await.map(|mode| *mode) {
                let _ = stopper.send(mode);
            }
        });
        let life = Life { progress: progress.clone(), swaps: swapper.clone().zip(self.base.clone()), at_fault };
        self.orders.lives.begins(life.clone());
        if let Some(control) = &self.control {
            control.begins()?;
        }
        watcher.on(Event::Began(&progress)).await;
        // It asks for a barrier, so it goes beside the pipeline.
        let orders = self.orders.clone();
        let left_over = tokio::spawn(async move { swaps::make_left_over(&orders.lives, &life).await });
        let result = prepared.run().await;
        forward.abort();
        let _ = left_over.await;
        watcher.on(Event::Over).await;
        let decided = progress.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.decided.load(Relaxed));
        match result {
            Err(failure) => {
                let blames_swap = swapper.is_some_and(|swapper| swapper.is_to_blame(&failure));
                Ok(Err(Over { failure, decided, blames_swap }))
            }
            Ok(progress) => {
                let stopped = *stop.borrow();
                watcher.on(Event::Finished { progress: &progress, stopped }).await;
                Ok(Ok(decided))
            }
        }
    }

    /// What is left to do when it is over.
    async fn finish(&mut self, end: &End, watcher: &mut dyn Watcher) -> Result<(), ServerError> {
        let well = matches!(end, End::Well);
        if let Some(state) = self.state.as_ref().filter(|state| state.temporary && !well) {
            let abandoned =
                pelton_runtime::checkpoint::abandon::abandon(&self.graph, self.base_dir.clone(), &state.options, &self.io).await;
            if let Err(failure) = abandoned {
                tracing::warn!(%failure, "hidden files of the run that failed are left where its output goes; they may be removed");
            }
        }
        let copied = self.copy_last(end, watcher).await;
        // Whoever waits for the copy is answered first.
        if let Some(control) = self.control.take() {
            control.end().await;
        }
        copied
    }

    /// The savepoint with which somebody has stopped it. That a pipeline has failed is told without it.
    async fn copy_last(&self, end: &End, watcher: &mut dyn Watcher) -> Result<(), ServerError> {
        let (Some(place), Some(state)) = (self.orders.last_savepoint(), &self.state) else { return Ok(()) };
        if let End::Failed(failure) = end {
            self.orders.copied(Err(format!("the pipeline failed, and there is no savepoint: {failure}")));
            return Ok(());
        }
        let copied = pelton_runtime::checkpoint::copy_newest(&state.options.place(), &place).await;
        if let Ok(epoch) = copied {
            watcher.on(Event::Savepoint { epoch, place: &place }).await;
        }
        let copied = copied.map_err(|error| format!("the pipeline has stopped, but there is no savepoint: {error}"));
        self.orders.copied(copied.clone());
        copied.map(drop).map_err(ServerError::User)
    }
}

//! One pipeline of a host: a thread of its own supervises it while it runs.
//!
//! What a pipeline does to itself ends with it: its supervisor, workers and connectors have threads of their own, a panic of any is a failure of this pipeline,
//! and its events are told by the span that the threads are in.

use crate::control::Orders;
use crate::folder::Deployment;
use crate::logs::{Log, SPAN};
use crate::refusal::{Refusal, Why};
use crate::state::{State, StateOptions};
use crate::supervise::{Event, Job, Watcher, supervise};
use crate::versions::{Base, Loaded};
use crate::weight;
use pelton_core::{Epoch, Instant};
use pelton_runtime::checkpoint::{FromSavepoint, Otherwise};
use pelton_runtime::{Progress, StopMode, clock};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Threads for connectors' I/O: they wait more than they work.
const IO_THREADS: usize = 2;
/// What connectors may still do when a pipeline is over.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long somebody waits for a pipeline to stop; it goes on stopping after that.
const STOP_PATIENCE: Duration = Duration::from_secs(300);
/// Samples of which rates are made, one a second.
const SAMPLES: usize = 6;

/// Where a pipeline is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is checked and laid out.
    Starting,
    /// Rows go through it.
    Running,
    /// It failed, and will go on from its last checkpoint.
    Restarting,
    /// It takes its last checkpoint.
    Stopping,
    /// Somebody has paused it.
    Paused,
    /// Somebody has stopped it.
    Stopped,
    /// Its input has ended, or it was drained.
    Ended,
    /// It failed, and somebody must act.
    Failed,
}

/// A failure and when it was.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// RFC 3339.
    pub at: String,
    /// What, and what to do next.
    pub message: String,
}

/// Everything that a life needs.
pub struct Plan {
    /// Its file, which swaps are on top of.
    pub base: Base,
    /// The checked graph and its plugins.
    pub loaded: Loaded,
    /// How it is to run.
    pub deployment: Deployment,
    /// Where relative paths start.
    pub base_dir: PathBuf,
    /// Its checkpoints.
    pub state: PathBuf,
}

/// What is known of the life of a pipeline.
#[derive(Clone)]
pub struct Life {
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// Lives after the first since somebody has started it.
    pub restarts: u64,
    /// Its last failure, also one that passed.
    pub last_failure: Option<Failed>,
    /// The figures of its last life.
    pub progress: Option<Arc<Progress>>,
    /// Tasks side by side.
    pub parallelism: usize,
    /// Its plan as a drawing.
    pub drawing: String,
    /// Figures of the last seconds, the oldest first.
    pub samples: VecDeque<Sample>,
    /// The last epoch, copied when it had stopped.
    savepoint: Option<(Epoch, String)>,
}

/// Figures at one moment.
#[derive(Clone)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// By node: rows in, rows out, and nanoseconds of work.
    pub nodes: Vec<(u64, u64, u64)>,
}

struct Running {
    orders: Arc<Orders>,
    over: watch::Receiver<bool>,
}

struct Inner {
    life: Life,
    running: Option<Running>,
}

/// See the module.
pub struct Hosted {
    /// Its name.
    pub name: String,
    /// Its log.
    pub log: Arc<Log>,
    /// Held by whoever changes something: one at a time.
    pub change: Arc<tokio::sync::Mutex<()>>,
    inner: Mutex<Inner>,
}

impl Hosted {
    /// One that does not run.
    pub fn new(name: String, log: Arc<Log>, phase: Phase) -> Hosted {
        let life = Life {
            phase,
            since: clock::now(),
            restarts: 0,
            last_failure: None,
            progress: None,
            parallelism: 0,
            drawing: String::new(),
            samples: VecDeque::new(),
            savepoint: None,
        };
        Hosted { name, log, change: Arc::default(), inner: Mutex::new(Inner { life, running: None }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// What is known of it now.
    pub fn life(&self) -> Life {
        self.inner().life.clone()
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.inner().life.phase
    }

    fn set(&self, phase: Phase) {
        let life = &mut self.inner().life;
        (life.phase, life.since) = (phase, clock::now());
    }

    /// Whether its threads are there.
    pub fn is_alive(&self) -> bool {
        self.inner().running.is_some()
    }

    /// Takes note of its figures.
    pub fn sample(&self) {
        let life = &mut self.inner().life;
        let Some(progress) = life.progress.as_ref().filter(|_| life.phase == Phase::Running) else { return };
        let nodes = progress.nodes.iter().map(|node| {
            let out = node.rows_out.iter().map(|rows| rows.load(Relaxed)).sum();
            (node.rows_in.load(Relaxed), out, node.busy_nanos.load(Relaxed))
        });
        let sample = Sample { at: clock::now(), nodes: nodes.collect() };
        if life.samples.len() == SAMPLES {
            life.samples.pop_front();
        }
        life.samples.push_back(sample);
    }

    /// Starts it. `Ok` when it runs, has ended before, or tries again by itself; else why it does not run.
    pub async fn start(self: &Arc<Self>, drain: bool, load: impl FnOnce() -> Result<Plan, String> + Send + 'static) -> Result<(), String> {
        let orders = Orders::new();
        if drain {
            orders.stop(StopMode::Drain);
        }
        let (began, begins) = oneshot::channel();
        let (over, is_over) = watch::channel(false);
        {
            let mut inner = self.inner();
            inner.running = Some(Running { orders: orders.clone(), over: is_over });
            let life = &mut inner.life;
            (life.phase, life.since) = (Phase::Starting, clock::now());
            (life.restarts, life.last_failure, life.progress, life.savepoint) = (0, None, None, None);
            life.samples.clear();
        }
        let hosted = self.clone();
        let thread = std::thread::Builder::new().name(format!("run-{}", self.name)).spawn(move || {
            live(&hosted, orders, load, began);
            hosted.inner().running = None;
            let _ = over.send(true);
        });
        if let Err(error) = thread {
            self.inner().running = None;
            self.set(Phase::Failed);
            return Err(format!("the system gives no thread: {error}"));
        }
        begins.await.unwrap_or_else(|_| Err("it ended before it began".into()))
    }

    /// Stops it if it runs, and waits until it has. Gives the savepoint, if one was wanted.
    pub async fn stop(&self, drain: bool, savepoint: Option<String>) -> Result<Option<(Epoch, String)>, Refusal> {
        let (orders, mut over) = {
            let mut inner = self.inner();
            let Some(running) = &inner.running else { return Ok(None) };
            let told = (running.orders.clone(), running.over.clone());
            (inner.life.phase, inner.life.since) = (Phase::Stopping, clock::now());
            told
        };
        let wanted = savepoint.is_some();
        let mode = if drain { StopMode::Drain } else { StopMode::Stop };
        match savepoint {
            Some(place) => orders.stop_with_savepoint(mode, place).map_err(|message| Refusal::new(Why::Conflict, message))?,
            None => orders.stop(mode),
        }
        if tokio::time::timeout(STOP_PATIENCE, over.wait_for(|over| *over)).await.is_err() {
            let message = format!("`{}` still stops after {} s; look again with `pelton status {0}`", self.name, STOP_PATIENCE.as_secs());
            return Err(Refusal::new(Why::Slow, message));
        }
        let life = self.life();
        match life.savepoint {
            None if wanted => {
                let why = life.last_failure.map_or_else(|| "it had not begun".to_string(), |failed| failed.message);
                Err(Refusal::new(Why::Broken, format!("`{}` has stopped, but there is no savepoint: {why}", self.name)))
            }
            savepoint => Ok(savepoint),
        }
    }

    /// Waits for the end of one that has failed: its threads go when they have let go of what they had.
    pub async fn gone_if_failed(&self) {
        let over = {
            let inner = self.inner();
            inner.running.as_ref().filter(|_| inner.life.phase == Phase::Failed).map(|running| running.over.clone())
        };
        if let Some(mut over) = over {
            // Whoever still finds it alive says so.
            let _ = tokio::time::timeout(STOP_PATIENCE, over.wait_for(|over| *over)).await;
        }
    }

    /// What can be asked of it while it runs.
    pub fn orders(&self) -> Option<Arc<Orders>> {
        self.inner().running.as_ref().map(|running| running.orders.clone())
    }

    /// It does not run, and is to look so.
    pub fn rest(&self, phase: Phase) {
        if !self.is_alive() {
            self.set(phase);
        }
    }

    fn failed(&self, message: String) {
        tracing::error!("{message}");
        self.inner().life.last_failure = Some(Failed { at: clock::now().to_string(), message });
        self.set(Phase::Failed);
    }
}

/// Does something whose events are in the log of a pipeline, on a thread that is not the pipeline's.
pub fn inside<T>(name: &str, tell: impl FnOnce() -> T) -> T {
    tracing::info_span!("pipeline", name).in_scope(tell)
}

thread_local! {
    /// The span of a thread that belongs to a pipeline for life.
    static IN: RefCell<Option<tracing::span::EnteredSpan>> = const { RefCell::new(None) };
}

/// The body of a pipeline's thread.
fn live(
    hosted: &Arc<Hosted>,
    orders: Arc<Orders>,
    load: impl FnOnce() -> Result<Plan, String>,
    began: oneshot::Sender<Result<(), String>>,
) {
    let span = tracing::info_span!("pipeline", name = hosted.name);
    debug_assert_eq!(SPAN, "pipeline");
    let _inside = span.enter();
    let mut told = Told { hosted: hosted.clone(), began: Some(began) };
    let result = catch_unwind(AssertUnwindSafe(|| live_once(hosted, orders, load, &span, &mut told)));
    let failure = match result {
        Ok(Ok(())) => return,
        Ok(Err(message)) => message,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            format!("internal error: {}; please report it", text.unwrap_or_else(|| "a panic".into()))
        }
    };
    hosted.failed(failure.clone());
    told.begins(Err(failure));
}

fn live_once(
    hosted: &Arc<Hosted>,
    orders: Arc<Orders>,
    load: impl FnOnce() -> Result<Plan, String>,
    span: &tracing::Span,
    told: &mut Told,
) -> Result<(), String> {
    let Plan { base, loaded: Loaded { graph, plugins }, deployment, base_dir, state } = load()?;
    weight::apply(graph.options.weight);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let parallelism = deployment.parallelism.or(graph.options.parallelism).unwrap_or(cores);
    {
        let life = &mut hosted.inner().life;
        life.parallelism = parallelism;
        life.drawing = pelton_pipeline::physical::drawing(&graph).to_svg();
    }
    // Each start says what the first one began with.
    let from = deployment.from.clone().map(|place| FromSavepoint { place, otherwise: Otherwise::GoOn });
    let wanted = StateOptions { folder: Some(state), from, drop_state: deployment.drop_state.clone(), ..StateOptions::default() };
    let state = State::open(&wanted, &graph.options.durable).map_err(|error| error.to_string())?;
    let inside = span.clone();
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .thread_name("io")
        .on_thread_start(move || IN.with(|slot| *slot.borrow_mut() = Some(inside.clone().entered())))
        .on_thread_stop(|| IN.with(|slot| drop(slot.borrow_mut().take())))
        .build()
        .map_err(|error| format!("the system gives no threads: {error}"))?;
    let job = Job {
        base: Some(Arc::new(base)),
        graph,
        plugins,
        file: deployment.file,
        base_dir,
        parallelism,
        io: io.handle().clone(),
        state,
        crashes: None,
        orders,
        control: None,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| io.block_on(supervise(job, told))));
    io.shutdown_timeout(LAST_WORDS);
    match outcome {
        Ok(outcome) => outcome.map(drop).map_err(|error| error.to_string()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Keeps what happens to a pipeline.
struct Told {
    hosted: Arc<Hosted>,
    /// Whoever waits for the start.
    began: Option<oneshot::Sender<Result<(), String>>>,
}

impl Told {
    fn begins(&mut self, result: Result<(), String>) {
        if let Some(began) = self.began.take() {
            let _ = began.send(result);
        }
    }
}

#[async_trait::async_trait(?Send)]
impl Watcher for Told {
    async fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Began(progress) => {
                {
                    let life = &mut self.hosted.inner().life;
                    life.progress = Some(progress.clone());
                    life.samples.clear();
                    // Somebody may have told it to stop meanwhile.
                    if life.phase != Phase::Stopping {
                        (life.phase, life.since) = (Phase::Running, clock::now());
                    }
                }
                tracing::info!("it runs");
                self.begins(Ok(()));
            }
            Event::Over => {}
            Event::Finished { stopped, .. } => {
                let phase = match stopped {
                    StopMode::Stop => Phase::Stopped,
                    StopMode::Run | StopMode::Drain => Phase::Ended,
                };
                tracing::info!("{}", if phase == Phase::Ended { "it has ended" } else { "it has stopped" });
                self.hosted.set(phase);
            }
            Event::HadEnded(epoch) => {
                tracing::info!(epoch, "it had ended before: its input was read to the end and all output is visible");
                self.hosted.set(Phase::Ended);
                self.begins(Ok(()));
            }
            Event::Restarts { message, pause } => {
                tracing::warn!(pause = ?pause, "it goes on from its last checkpoint, since it failed: {message}");
                {
                    let life = &mut self.hosted.inner().life;
                    life.restarts += 1;
                    life.last_failure = Some(Failed { at: clock::now().to_string(), message });
                    if life.phase != Phase::Stopping {
                        (life.phase, life.since) = (Phase::Restarting, clock::now());
                    }
                }
                self.begins(Ok(()));
            }
            Event::Failed(message) => {
                self.hosted.failed(message.clone());
                self.begins(Err(message));
            }
            Event::Savepoint { epoch, place } => {
                self.hosted.inner().life.savepoint = Some((epoch, place.into()));
            }
        }
    }
}

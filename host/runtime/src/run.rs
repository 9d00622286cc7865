//! Runs a pipeline: binds the graph, lays tasks and channels out over workers, supervises them to their end.
//!
//! Workers are threads, each a cooperative executor that owns its tasks; tasks of different workers meet only in channels.
//! Connectors' I/O lives on the multi-thread runtime that the caller hands in, so that a slow plugin delays no broker.
//!
//! - [`layout`]: a graph becomes tasks and the channels between them, as the last checkpoint has it.
//! - [`task_plan`]: a task before it runs: its operators and what they go on from.
//! - [`workers`]: the threads, and who ends the run.
//! - [`memory`]: how a pipeline's memory is divided.
//!
//! Invariants: a task belongs to one worker for life; the first failure is the one reported, and it cancels the rest; a run
//! that failed leaves no sink half published.

mod layout;
mod memory;
mod task_plan;
mod workers;

use crate::alignment::Alignment;
use crate::bind::BoundNode;
use crate::checkpoint::CheckpointOptions;
use crate::checkpoint::driver::{CheckpointProgress, Driver};
use crate::clock;
use crate::failure::Failure;
use crate::metrics::{NodeFigures, NodeMetrics, Scatter, WindowCounts};
use crate::operators::sink::Summaries;
use crate::swap::Swapper;
use layout::lay_out;
use pelton_connect::{SinkSummary, SourceContext};
use pelton_core::swap::Versions;
use pelton_core::{Duration, Epoch};
use pelton_pipeline::graph::Graph;
use pelton_plugin::Plugin;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use task_plan::TaskPlan;
use tokio::sync::watch;

pub use memory::{DEFAULT_MEMORY, memory_accounts};

/// How far out of order rows of unbounded input are taken to be where the pipeline does not say.
pub const DEFAULT_DELAY: Duration = Duration::from_micros(5_000_000);
/// After how long without rows a split of unbounded input is idle where the pipeline does not say.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_micros(30_000_000);

/// What the user wants of the running pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Go on.
    Run,
    /// Finish what is in flight, flush, leave open windows open.
    Stop,
    /// The same, but move the watermark to the end first, so that every window fires.
    Drain,
}

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// The pipeline file, for messages.
    pub file: String,
    /// Relative paths in configs start here.
    pub base_dir: PathBuf,
    /// Tasks side by side.
    pub parallelism: usize,
    /// For connectors.
    pub io: tokio::runtime::Handle,
}

impl RunOptions {
    fn source_context(&self, transform: String, stop: &watch::Receiver<bool>) -> SourceContext {
        let RunOptions { parallelism, base_dir, io, .. } = self;
        SourceContext { transform, parallelism: *parallelism, base_dir: base_dir.clone(), io: io.clone(), stop: stop.clone() }
    }
}

/// What can be watched while a pipeline runs, and read after it.
pub struct Progress {
    /// By node.
    pub nodes: Vec<Arc<NodeMetrics>>,
    /// Event time against processing time.
    pub scatter: Arc<Scatter>,
    /// Rows per window.
    pub windows: Arc<WindowCounts>,
    /// What sinks wrote.
    pub summaries: Summaries,
    /// Sources that keep pace with each other.
    pub(crate) alignment: Alignment,
    /// Where the pipeline takes checkpoints: how far they have come.
    pub checkpoints: Option<Arc<CheckpointProgress>>,
}

impl Progress {
    fn new(graph: &Graph, bound: &[BoundNode], checkpoints: Option<Arc<CheckpointProgress>>) -> Progress {
        let metrics = |(node, bound): (&pelton_pipeline::graph::Node, &BoundNode)| {
            Arc::new(NodeMetrics::new(node.name.clone(), node.transform.kind().to_string(), bound.ports.clone()))
        };
        Progress {
            nodes: graph.nodes.iter().zip(bound).map(metrics).collect(),
            scatter: Arc::default(),
            windows: Arc::default(),
            summaries: Summaries::default(),
            alignment: Alignment::default(),
            checkpoints,
        }
    }

    /// The figures of every transform now.
    pub fn figures(&self) -> Vec<NodeFigures> {
        self.nodes.iter().map(|node| node.snapshot(clock::now())).collect()
    }

    /// What sinks wrote, by transform.
    pub fn written(&self) -> Vec<(String, SinkSummary)> {
        let mut written = self.summaries.lock().expect("no holder of this lock panics").clone();
        written.sort_by(|a, b| (&a.0, &a.1.files).cmp(&(&b.0, &b.1.files)));
        written
    }
}

/// A pipeline that is ready to run: everything that could be checked without reading data has been.
pub struct Prepared {
    /// To watch.
    pub progress: Arc<Progress>,
    /// Whether any source never ends by itself.
    pub unbounded: bool,
    /// The decided epoch that it goes on from; 0: it begins.
    pub resumed: Epoch,
    /// To stop: `send(StopMode::Stop)`.
    pub stop: watch::Sender<StopMode>,
    /// To change transforms, where the pipeline takes checkpoints.
    pub swapper: Option<Arc<Swapper>>,
    tasks: Vec<TaskPlan>,
    workers: usize,
    stop_reading: watch::Sender<bool>,
    driver: Option<Driver>,
    io: tokio::runtime::Handle,
    cancel: Arc<watch::Sender<bool>>,
    crashed: Arc<AtomicBool>,
}

/// Ends a run as if its process died: nothing is flushed, aborted or told. For tests.
#[derive(Clone)]
pub struct Crasher {
    cancel: Arc<watch::Sender<bool>>,
    crashed: Arc<AtomicBool>,
}

impl Crasher {
    /// Now.
    pub fn crash(&self) {
        self.crashed.store(true, Ordering::SeqCst);
        let _ = self.cancel.send(true);
    }
}

/// A pipeline with checkpoints that was started or started again.
pub enum Resumed {
    /// It goes on.
    Run(Box<Prepared>),
    /// It has come to its end before: everything is visible.
    Ended(Epoch),
    /// The graph is to be loaded with these swaps first: they are part of what the pipeline goes on from.
    Otherwise(Versions),
}

/// Binds and lays out a pipeline that takes no checkpoints.
pub async fn prepare(graph: Graph, plugins: &[Arc<Plugin>], options: RunOptions) -> Result<Prepared, Failure> {
    match lay_out(graph, plugins, options, None).await? {
        Resumed::Run(prepared) => Ok(*prepared),
        Resumed::Ended(_) | Resumed::Otherwise(_) => {
            Err(Failure::Internal { transform: "checkpoint".into(), message: "a pipeline without checkpoints goes on from nothing".into() })
        }
    }
}

/// Binds and lays out a pipeline as its last checkpoint has it.
pub async fn resume(
    graph: Graph,
    plugins: &[Arc<Plugin>],
    options: RunOptions,
    checkpoints: &CheckpointOptions,
) -> Result<Resumed, Failure> {
    lay_out(graph, plugins, options, Some(checkpoints)).await
}

impl Prepared {
    /// To end the run as if its process died.
    pub fn crasher(&self) -> Crasher {
        Crasher { cancel: self.cancel.clone(), crashed: self.crashed.clone() }
    }
}

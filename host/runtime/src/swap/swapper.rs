//! PREPARE and ARM of a swap, and the wish for its barrier.
//!
//! One swap at a time. Everything up to the wish happens beside the pipeline, on threads of the I/O runtime; what is refused leaves nothing behind.

use super::experiment::Experiment;
use super::passage::{self, Passage};
use super::shape::changed;
use super::trial::{self, Trial};
use super::{Cut, NewVersion};
use crate::bind::rebind::{Rebound, Sources};
use crate::bind::{Binder, BoundNode, OperatorPlan};
use crate::checkpoint::driver::{CheckpointProgress, NewNode, Order, Want};
use crate::failure::Failure;
use crate::metrics::NodeMetrics;
use crate::recording;
use bytes::Bytes;
use pelton_core::evolution::{Book, Problem, outlook};
use pelton_core::swap::{Armed, AtStart, Change, Made, Positions, Versions, at_start, transform_of};
use pelton_core::{Epoch, failpoint};
use pelton_pipeline::graph::Graph;
use pelton_plugin::Plugin;
use pelton_state::durable::{Checkpoints, StoreError};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Said where the process may be gone before the decision is known.
const ENDED: &str = "the pipeline ended before it was decided whether the swap counts; when it goes on from its last checkpoint, a swap that does not count is made again";
const HISTORY: &str = "look with `pelton plugin history` at what runs";

/// What is to run.
pub struct Wanted {
    /// The pipeline, loaded with the changes.
    pub graph: Graph,
    /// Its plugins, by provider.
    pub plugins: Vec<Arc<Plugin>>,
    /// What differs from what runs.
    pub changes: Vec<Change>,
    /// Components that the changes name, by digest: they are kept with the checkpoints.
    pub components: Vec<(String, Bytes)>,
    /// All checks, and nothing else.
    pub dry_run: bool,
    /// There need be no way back.
    pub irreversible: bool,
    /// The candidate that is promoted.
    pub experiment: Option<Arc<Experiment>>,
}

/// What to do where a swap is not enough.
const RESTART: &str = "end the pipeline with `pelton stop STATE --savepoint PLACE` and start the new one with `pelton run --from PLACE`";

/// Why a swap is not made. What ran goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next: String,
    /// A new start from a savepoint would do it.
    pub needs_start: bool,
    /// The life ended in the middle: the next one finds out whether this swap was made, and else makes it again.
    pub undecided: Option<Box<Armed>>,
}

/// A swap that was made, or that could be.
#[derive(Clone, Debug, Serialize)]
pub struct Swapped {
    /// Its number; 0: only tried.
    pub number: u64,
    /// The last epoch of the old versions.
    pub epoch: Epoch,
    /// Where each source stood at its end.
    pub cut: Positions,
    /// The longest time that a task stood still, milliseconds; `None`: a restart stood between.
    pub pause_millis: Option<f64>,
    /// How rows fared with the new versions before.
    pub trials: Vec<Trial>,
    /// What to know besides.
    pub notes: Vec<String>,
}

/// What is fixed while a pipeline runs.
pub struct Site {
    /// The pipeline file, for messages.
    pub file: String,
    /// Tasks side by side.
    pub parallelism: usize,
    /// Bytes of state for each task of a grouping.
    pub state_limit: usize,
    /// What sources give.
    pub sources: Sources,
    /// Tasks by node.
    pub tasks: HashMap<usize, usize>,
    /// Guests that a node needs: one for each task, and one for each edge that aggregates for it.
    pub guests: HashMap<usize, usize>,
    /// Metrics by node.
    pub metrics: Vec<Arc<NodeMetrics>>,
    /// Cells may lie on disk.
    pub evicts: bool,
    /// Sinks whose rows are visible before their epoch is decided.
    pub visible_sinks: Vec<String>,
}

/// What runs now.
pub struct Running {
    /// Expanded.
    pub graph: Graph,
    /// In the order of its nodes.
    pub nodes: Vec<BoundNode>,
    /// On top of the file.
    pub versions: Versions,
    /// By node: what the state of a plugin is made of.
    pub books: HashMap<usize, Book>,
}

/// Swaps the transforms of one life of a pipeline.
pub struct Swapper {
    site: Site,
    store: Arc<Checkpoints>,
    checkpoints: Arc<CheckpointProgress>,
    running: tokio::sync::Mutex<Running>,
    /// The swap that is armed and not decided.
    under_way: Mutex<Option<Armed>>,
}

impl Refused {
    /// With what to do.
    pub fn new(message: impl Into<String>, next: impl Into<String>) -> Refused {
        Refused { message: message.into(), next: next.into(), needs_start: false, undecided: None }
    }

    /// What a swap cannot do, and a new start from a savepoint can.
    pub fn needs_start(message: impl Into<String>) -> Refused {
        Refused { needs_start: true, ..Refused::new(message, RESTART) }
    }

    fn store(error: &StoreError) -> Refused {
        Refused::new(format!("it cannot be written down: {error}"), "look at the place of the checkpoints, and try again")
    }

    fn failure(failure: &Failure) -> Refused {
        Refused::new(failure.to_string(), "mend the new version; the old one goes on")
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  next: {}", self.message, self.next)
    }
}

impl Swapper {
    /// For a pipeline that has been laid out.
    pub fn new(site: Site, store: Arc<Checkpoints>, checkpoints: Arc<CheckpointProgress>, running: Running) -> Swapper {
        Swapper { site, store, checkpoints, running: tokio::sync::Mutex::new(running), under_way: Mutex::default() }
    }

    /// Whether the failure of a transform is that of a swap that is not decided: then the old version goes on.
    pub fn is_to_blame(&self, failure: &Failure) -> bool {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = self.site.metrics.iter().map(|node| node.name.as_str());
        let mut changed = under_way.iter().flat_map(|armed| &armed.changes).map(|change| transform_of(&change.transform, nodes.clone()));
        failure.transform().is_some_and(|transform| changed.any(|changed| changed == transform))
    }

    /// What is known of a swap that was made, in whichever life.
    pub async fn made(&self, armed: &Armed) -> Result<Option<Swapped>, Failure> {
        let made = self.history().await?.into_iter().find(|made| made.number == armed.number && made.changes == armed.changes);
        Ok(made.map(|Made { number, epoch, positions, .. }| Swapped {
            number,
            epoch,
            cut: positions,
            pause_millis: None,
            trials: Vec::new(),
            notes: Vec::new(),
        }))
    }

    fn set_under_way(&self, armed: Option<&Armed>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = armed.cloned();
    }

    /// What runs, on top of the file.
    pub async fn versions(&self) -> Versions {
        self.running.lock().await.versions.clone()
    }

    /// Swaps that were made, from old to new.
    pub async fn history(&self) -> Result<Vec<Made>, Failure> {
        self.store.swaps().await.map_err(Failure::store)
    }

    /// A component that was kept with the checkpoints.
    pub async fn component(&self, digest: &str) -> Result<Option<Bytes>, Failure> {
        self.store.component(digest).await.map_err(Failure::store)
    }

    /// The checkpoints of the pipeline.
    pub fn checkpoints(&self) -> &CheckpointProgress {
        &self.checkpoints
    }

    /// A transform as it runs now, and its metrics.
    pub async fn site_of(&self, transform: &str) -> Result<(recording::take::Site, Arc<NodeMetrics>), Refused> {
        let running = self.running.lock().await;
        let names = || running.graph.nodes.iter().map(|node| node.name.as_str());
        let Some(node) = names().position(|name| name == transform) else {
            let near =
                pelton_core::catalog::nearest(transform, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(Refused::new(format!("the pipeline has no transform `{transform}`{near}"), "name one of the pipeline file"));
        };
        let site = recording::take::Site {
            bound: running.nodes[node].clone(),
            tasks: self.site.tasks.get(&node).copied().unwrap_or(1),
            uid: uid(&running.graph, node),
        };
        Ok((site, self.site.metrics[node].clone()))
    }

    /// The swap that an earlier life has armed and that is still to be made. One that was made is written down.
    pub async fn left_over(&self) -> Result<Option<Armed>, Failure> {
        // A swap that is under way is armed, too.
        let running = self.running.lock().await;
        let Some(armed) = self.store.armed().await.map_err(Failure::store)? else { return Ok(None) };
        let versions = &running.versions;
        if at_start(&armed, versions) == AtStart::Again {
            return Ok(Some(armed));
        }
        match armed.number == versions.swaps {
            true => self.store.record_swap(&versions.made(&armed)).await.map_err(Failure::store)?,
            // Others have been made since, and so it was written down.
            false => self.give_up().await?,
        }
        Ok(None)
    }

    /// What is armed is not made.
    pub async fn give_up(&self) -> Result<(), Failure> {
        self.store.disarm().await.map_err(Failure::store)
    }

    /// Makes a swap: returns when it is decided, or with why it was not made.
    pub async fn swap(&self, wanted: Wanted) -> Result<Swapped, Refused> {
        let under_way = || Refused::new("another swap of this pipeline is under way", "wait for its end, or make both in one swap");
        let mut running = self.running.try_lock().map_err(|_| under_way())?;
        let Prepared { graph, nodes, cut, changed, trials, books } = self.prepare(&running, &wanted).await?;
        failpoint::hit("swap.prepared");
        let tried = Swapped { number: 0, epoch: 0, cut: Positions::new(), pause_millis: None, trials, notes: self.notes() };
        if wanted.dry_run {
            return Ok(tried);
        }
        let armed = Armed { number: running.versions.swaps + 1, changes: wanted.changes };
        self.arm(&armed, wanted.components).await?;
        failpoint::hit("swap.armed");
        let cut = Arc::new(cut);
        let new = |node: &usize| (*node, NewNode { plugin: nodes[*node].refusals.plugin.clone(), declared: nodes[*node].declared() });
        let order = Order { armed: armed.clone(), cut: cut.clone(), nodes: changed.iter().map(new).collect() };
        self.set_under_way(Some(&armed));
        let asked = self.checkpoints.ask(Want::Swap(Box::new(order))).await;
        let undecided = || Refused { undecided: Some(Box::new(armed.clone())), ..Refused::new(ENDED, HISTORY) };
        let done = asked.ok_or_else(undecided)?.map_err(|message| Refused::new(message, HISTORY))?;
        self.set_under_way(None);
        let versions = done.versions.unwrap_or_default();
        let pause_millis = Some(cut.longest_pause().as_secs_f64() * 1e3);
        let swapped = Swapped { number: armed.number, epoch: done.epoch, cut: versions.positions.clone(), pause_millis, ..tried };
        let mut all = std::mem::take(&mut running.books);
        all.extend(books);
        *running = Running { graph, nodes, versions, books: all };
        Ok(swapped)
    }

    /// Puts candidates beside what runs. Nothing of it is durable: a life that ends takes them with it.
    pub async fn begin(&self, mut wanted: Wanted, experiment: Arc<Experiment>) -> Result<Vec<Trial>, Refused> {
        let under_way = || Refused::new("a swap of this pipeline is under way", "wait for its end");
        let running = self.running.try_lock().map_err(|_| under_way())?;
        wanted.experiment = Some(experiment.clone());
        let Prepared { nodes, cut, changed, trials, .. } = self.prepare(&running, &wanted).await?;
        for node in &changed {
            let bound = &nodes[*node];
            if matches!(bound.plan, OperatorPlan::Combine(_)) {
                let message = format!("`{}` groups, and no candidate can stand beside its aggregates", bound.refusals.transform);
                return Err(Refused::new(message, "swap it with --watch instead"));
            }
            if has_effects(bound) {
                let message = format!(
                    "`{}` has requests made (it imports `pelton:plugin/http`), and effects are refused in a canary and in a shadow: both versions would ask",
                    bound.refusals.transform
                );
                return Err(Refused::new(message, "swap it with --watch instead"));
            }
            if bound.sides.is_some() {
                let message = format!("`{}` has side inputs, which a candidate cannot be given yet", bound.refusals.transform);
                return Err(Refused::new(message, "swap it with --watch instead"));
            }
            if self.site.evicts && matches!(bound.plan, OperatorPlan::Stateful(_)) {
                let message =
                    format!("the state of `{}` may lie on disk, and a candidate cannot be handed it yet", bound.refusals.transform);
                return Err(Refused::new(message, "swap it with --watch instead, or use the memory backend"));
            }
            if let Some(column) = experiment
                .by
                .iter()
                .find(|column| reads(&running.nodes, &running.graph, *node).is_none_or(|schema| schema.index_of(column).is_err()))
            {
                let message = format!("`{}` has no column `{column}` to tell the candidate's rows by", bound.refusals.transform);
                return Err(Refused::new(message, "name a column of its input that the pipeline reads"));
            }
        }
        let cut = Arc::new(cut.of_candidates());
        let asked = self.checkpoints.ask(Want::Cut(cut)).await;
        let asked = asked.unwrap_or_else(|| Err("the pipeline ended before the candidate was there".into()));
        asked.map_err(|message| Refused::new(message, "try again when it runs"))?;
        Ok(trials)
    }

    /// Whether the life is over.
    pub fn is_over(&self) -> bool {
        self.checkpoints.wishes().is_closed()
    }

    async fn arm(&self, armed: &Armed, components: Vec<(String, Bytes)>) -> Result<(), Refused> {
        for (digest, bytes) in components {
            self.store.keep_component(&digest, bytes).await.map_err(|error| Refused::store(&error))?;
        }
        self.store.arm(armed).await.map_err(|error| Refused::store(&error))
    }

    async fn prepare(&self, running: &Running, wanted: &Wanted) -> Result<Prepared, Refused> {
        if wanted.changes.is_empty() {
            return Err(Refused::new("nothing would change: that is what runs", "name another version"));
        }
        // Binding calls guests.
        let rebound = tokio::task::block_in_place(|| self.bind(wanted));
        let Rebound { graph, nodes, missing } = rebound.map_err(|failure| Refused::failure(&failure))?;
        if let Some((source, column)) = missing.first() {
            let message = format!("the new version needs the column `{column}`, which the running pipeline does not read from `{source}`");
            return Err(Refused::needs_start(message));
        }
        let names = graph.nodes.iter().map(|node| node.name.as_str());
        let transforms: BTreeSet<&str> = wanted.changes.iter().map(|change| transform_of(&change.transform, names.clone())).collect();
        let changed = changed(&transforms, (&running.graph, &running.nodes), (&graph, &nodes))?;
        let mut taken_overs: HashMap<usize, TakenOver> = HashMap::new();
        for node in &changed {
            let book = running.books.get(node);
            let taken = taken_over(book, &running.nodes[*node], &nodes[*node], wanted.irreversible)?;
            if let Some(taken) = taken.as_ref().filter(|taken| taken.grows && self.site.evicts) {
                let message =
                    format!("the new version of `{}` keeps other state, and cells of the old one may lie on disk", taken.transform);
                return Err(Refused::needs_start(message));
            }
            taken_overs.extend(taken.map(|taken| (*node, taken)));
        }
        let mut trials = Vec::new();
        for node in &changed {
            let trial = self.try_out(*node, &nodes[*node]).await?;
            let cells = match taken_overs.get(node).is_some_and(|taken| taken.grows) {
                true => self.bring_over(running, *node, &nodes[*node], wanted.irreversible).await?,
                false => 0,
            };
            trials.push(Trial { cells, ..trial });
        }
        let guests = |node: &usize| self.site.guests.get(node).copied().unwrap_or(1);
        let grows = |node: &usize| taken_overs.get(node).is_some_and(|taken| taken.grows);
        let counting = |node: &usize| nodes[*node].clone().counting_in(&self.site.metrics[*node].plugin);
        let open = |node: &usize| NewVersion::open(counting(node), grows(node), guests(node)).map(|new| (*node, new));
        let open = |node: &usize| open(node).map(|(node, new)| (node, NewVersion { experiment: wanted.experiment.clone(), ..new }));
        let opened: Result<HashMap<usize, NewVersion>, Failure> = tokio::task::block_in_place(|| changed.iter().map(open).collect());
        let cut = Cut::new(opened.map_err(|failure| Refused::failure(&failure))?);
        let books = taken_overs.into_iter().map(|(node, taken)| (node, taken.book)).collect();
        Ok(Prepared { graph, nodes, cut, changed, trials, books })
    }

    fn bind(&self, wanted: &Wanted) -> Result<Rebound, Failure> {
        let Site { file, parallelism, state_limit, sources, .. } = &self.site;
        let binder = Binder {
            graph: &wanted.graph,
            written: &wanted.graph,
            file: file.clone(),
            plugins: &wanted.plugins,
            parallelism: *parallelism,
            state_limit: *state_limit,
        };
        binder.rebind(sources)
    }

    async fn try_out(&self, node: usize, bound: &BoundNode) -> Result<Trial, Refused> {
        let none = Trial { transform: bound.refusals.transform.clone(), ..Trial::default() };
        if bound.sides.is_some() {
            return Ok(none);
        }
        let Some(rows) = trial::sample(&self.site.metrics[node].sample).await else { return Ok(none) };
        let (bound, asks) = (bound.clone(), has_effects(bound));
        let tried = tokio::task::spawn_blocking(move || trial::run(bound, rows)).await;
        let tried = tried.map_err(|panic| Refused::new(format!("the trial failed: {panic}"), "please report it"))?;
        let tried = tried.map_err(|failure| Refused::failure(&failure))?;
        // Rows that depend on requests are refused for want of them.
        if !asks && tried.rows > 0 && tried.refused == tried.rows {
            let why = tried.why.map(|why| format!("; the first because of this: {why}")).unwrap_or_default();
            let message =
                format!("the new version of `{}` refuses all of {} rows that have just come in{why}", tried.transform, tried.rows);
            return Err(Refused::new(message, "mend the new version; the old one goes on"));
        }
        Ok(tried)
    }

    /// Brings the state of the last checkpoint to a version, where nobody sees it; gives the number of cells.
    async fn bring_over(&self, running: &Running, node: usize, after: &BoundNode, irreversible: bool) -> Result<u64, Refused> {
        let (uid, store, here) = (uid(&running.graph, node), self.store.clone(), tokio::runtime::Handle::current());
        let (before, after) = (running.nodes[node].clone(), after.clone());
        let name = after.refusals.transform.clone();
        // Merging rows is work, and so are the calls.
        let tried = tokio::task::spawn_blocking(move || match here.block_on(passage::stored(&store, &uid))? {
            Some(state) => passage::run(state, before, after, !irreversible),
            None => Ok(Passage { cells: 0, back: None }),
        });
        let tried = tried.await.map_err(|panic| Refused::new(format!("the trial failed: {panic}"), "please report it"))?;
        let passage = tried.map_err(|failure| {
            let message = format!("the new version of `{name}` cannot go on with the state of the last checkpoint: {failure}");
            Refused::new(message, "mend its `migrate`; the old version goes on")
        })?;
        match passage.back {
            None => Ok(passage.cells as u64),
            Some(failure) => {
                let message = format!(
                    "there would be no way back: the old version of `{name}` could not go on with what the new one makes of the state: {failure}"
                );
                Err(Refused::new(message, "mend the way back of its `migrate`, or swap with --irreversible"))
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let visible = &self.site.visible_sinks;
        if visible.is_empty() {
            return Vec::new();
        }
        let sinks = visible.iter().map(|sink| format!("`{sink}`")).collect::<Vec<_>>().join(", ");
        vec![format!(
            "{sinks}: rows are visible there before their epoch is decided; if the process dies before the swap is decided, rows after the cut may appear \
             from both versions"
        )]
    }
}

/// A swap that can be made.
struct Prepared {
    graph: Graph,
    nodes: Vec<BoundNode>,
    cut: Cut,
    changed: Vec<usize>,
    trials: Vec<Trial>,
    books: HashMap<usize, Book>,
}

/// By which its state is known in checkpoints.
fn uid(graph: &Graph, node: usize) -> String {
    let name = &graph.nodes[node].name;
    graph.options.durable.uids.get(name).unwrap_or(name).clone()
}

/// Whether a plugin of a node may have requests made.
fn has_effects(bound: &BoundNode) -> bool {
    bound.bindings().any(|binding| binding.plugin().has_effects())
}

/// The columns that come into a node.
fn reads(nodes: &[BoundNode], graph: &Graph, node: usize) -> Option<arrow::datatypes::SchemaRef> {
    let input = graph.nodes[node].inputs.first()?;
    Some(nodes[input.node].schema_of(&input.output))
}

/// The state of a plugin with the next one.
struct TakenOver {
    transform: String,
    book: Book,
    /// Cells will be made of more, or of other things.
    grows: bool,
}

/// What becomes of the state of a plugin, where there is some.
fn taken_over(book: Option<&Book>, before: &BoundNode, after: &BoundNode, irreversible: bool) -> Result<Option<TakenOver>, Refused> {
    let (Some(former), Some(next)) = (before.declared(), after.declared()) else { return Ok(None) };
    let name = &after.refusals.transform;
    let book = book.cloned().unwrap_or_else(|| Book::new(&former));
    let told = |problems: &[Problem]| problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ");
    let outlook = outlook(&book, &former, &next, &|_| false).map_err(|problems| {
        let next = problems.first().map(|problem| problem.next.clone()).unwrap_or_default();
        Refused::new(format!("the new version of `{name}` cannot go on with the state of the old one: {}", told(&problems)), next)
    })?;
    match outlook.back {
        Err(problems) if !irreversible => {
            let message =
                format!("there would be no way back: the old version of `{name}` could not read the new one's state: {}", told(&problems));
            Err(Refused::new(message, "give the old version a way to read it (`migrate`), or swap with --irreversible"))
        }
        _ => {
            let next = outlook.there.evolved.book;
            let grows = next.columns != book.columns || next.timers != book.timers || next.present().number != book.present().number;
            Ok(Some(TakenOver { transform: name.clone(), book: next, grows }))
        }
    }
}

/// The swaps that were made, of a store that nobody need use.
pub async fn history_of(store: &str) -> Result<Vec<Made>, String> {
    let storage = pelton_state::durable::storage::open(store).map_err(|error| error.to_string())?;
    pelton_state::durable::swaps::swaps(&*storage).await.map_err(|error| error.to_string())
}

/// By which versions a pipeline probably goes on: what its newest checkpoint says. Which one counts is known only after the fence.
pub async fn guess(store: &str) -> Versions {
    let Ok(storage) = pelton_state::durable::storage::open(store) else { return Versions::default() };
    let Ok(stored) = pelton_state::durable::look(&*storage).await else { return Versions::default() };
    stored.epochs.first().map(|epoch| epoch.manifest.contents.versions.clone()).unwrap_or_default()
}

/// A component that a store keeps, which nobody need use.
pub async fn component_of(store: &str, digest: &str) -> Result<Option<Bytes>, String> {
    let storage = pelton_state::durable::storage::open(store).map_err(|error| error.to_string())?;
    pelton_state::durable::swaps::load_component(&*storage, digest).await.map_err(|error| error.to_string())
}

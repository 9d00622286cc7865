//! From a running pipeline to a recording.

use super::file::{About, Recording};
use super::{Recorder, Tape, Taped, Want};
use crate::bind::{BoundNode, OperatorPlan};
use crate::checkpoint::inspect;
use crate::checkpoint::keep::{COUNTED, UNKEYED};
use crate::lab::{ERRORS, LATE, Step};
use crate::operator::Port;
use crate::swap::{Refused, Swapper};
use arrow::datatypes::SchemaRef;
use pelton_core::Epoch;
use pelton_core::evolution::Book;
use pelton_core::key::KEY_GROUPS;
use pelton_plugin::Binding;
use pelton_state::Rows;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is looked whether the rows have come.
const LOOK: Duration = Duration::from_millis(10);
/// State that a recording may have: it lies in memory until it is written.
const MAX_STATE_BYTES: usize = 256 << 20;

/// What somebody wants to have.
#[derive(Clone, Debug)]
pub struct Order {
    /// Full name of the transform.
    pub transform: String,
    /// So many rows of input.
    pub rows: usize,
    /// Until they have come.
    pub patience: Duration,
    /// Where the recording is to be.
    pub file: PathBuf,
}

/// What was recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Taken {
    /// Rows that came in.
    pub rows: usize,
    /// And went out, over all outputs.
    pub out: usize,
    /// Of a stateful transform: the epoch whose state it begins with.
    pub epoch: Option<Epoch>,
    /// Length of the file.
    pub bytes: usize,
}

/// A transform of the pipeline that runs.
pub struct Site {
    /// What it is bound to.
    pub bound: BoundNode,
    /// Its tasks.
    pub tasks: usize,
    /// What its state is matched by.
    pub uid: String,
}

/// State as of the beginning.
#[derive(Default)]
struct State {
    epoch: Option<Epoch>,
    book: Option<Book>,
    layouts: BTreeMap<String, String>,
    rows: Vec<(String, Rows)>,
    unkeyed: Vec<(String, Vec<u8>)>,
}

/// Records a transform and writes the file.
pub async fn record(swapper: &Swapper, order: &Order) -> Result<Taken, Refused> {
    let (site, recorder) = swapper.site_of(&order.transform).await?;
    let bound = &site.bound;
    if bound.sides.is_some() {
        let message = format!("`{}` has side inputs, which a recording has not got", order.transform);
        return Err(Refused::new(message, "record a transform without side inputs"));
    }
    let (binding, windows, stateful) = match &bound.plan {
        OperatorPlan::Plugin { binding, .. } => (&**binding, binding.needs.windows.then_some(bound.window_fn), false),
        OperatorPlan::Stateful(plan) => (&plan.binding.base, Some(bound.window_fn), true),
        _ => return Err(Refused::new(format!("`{}` is no plugin's transform", order.transform), "name one that is")),
    };
    if !recorder.recorder.begin(Want { rows: order.rows, windows, at_barrier: stateful }) {
        return Err(Refused::new(format!("`{}` is being recorded already", order.transform), "wait for the end of that recording"));
    }
    let place = order.file.with_extension("state");
    let state = match stateful {
        true => begin_with_state(swapper, &recorder.recorder, &place, &site.uid).await,
        false => Ok(State::default()),
    };
    if state.is_ok() {
        wait(&recorder.recorder, order.patience).await;
    }
    let Tape { steps, spoilt } = recorder.recorder.end();
    let state = state?;
    if let Some(why) = spoilt {
        return Err(Refused::new(format!("the recording is of no use: {why}"), "try again"));
    }
    let (rows, out) = (count_in(&steps), count_out(&steps));
    if rows == 0 {
        return Err(Refused::new(
            format!("no row came to `{}` in {} s", order.transform, order.patience.as_secs()),
            "wait longer (--wait), or look whether rows come",
        ));
    }
    let epoch = state.epoch;
    let recording = recording(&order.transform, &site, binding, steps, state);
    let written = tokio::task::block_in_place(|| write(&recording, &order.file));
    let bytes = written.map_err(|message| Refused::new(message, "name another file"))?;
    Ok(Taken { rows, out, epoch, bytes })
}

/// Has a barrier go through, and reads the state that belongs to it.
async fn begin_with_state(swapper: &Swapper, recorder: &Recorder, place: &Path, uid: &str) -> Result<State, Refused> {
    let name = place.display().to_string();
    let asked = swapper.checkpoints().checkpoint(Some(name.clone())).await;
    let epoch = asked.map_err(|message| Refused::new(format!("its state cannot be recorded: {message}"), "try again"))?;
    recorder.keep_from(epoch);
    let state = state_of(&name, uid).await;
    tokio::task::block_in_place(|| drop(std::fs::remove_dir_all(place)));
    let state = state.map_err(|message| Refused::new(format!("its state cannot be recorded: {message}"), "record a smaller pipeline"))?;
    Ok(State { epoch: Some(epoch), ..state })
}

async fn state_of(place: &str, uid: &str) -> Result<State, String> {
    let told = |error: pelton_state::durable::StoreError| error.to_string();
    let snapshot = inspect::open(place).await.map_err(told)?;
    let mut state = State::default();
    let Some(stored) = snapshot.manifest().contents.operators.iter().find(|operator| operator.uid == uid) else { return Ok(state) };
    let parts: Vec<_> = stored.states.iter().filter(|part| !part.unkeyed && part.name != COUNTED).collect();
    for part in parts {
        let mut rows = Rows::default();
        let mut stored = snapshot.rows(uid, &part.name, 0..KEY_GROUPS).await.map_err(told)?;
        while let Some(mut chunk) = stored.next().await.map_err(told)? {
            rows.append(&mut chunk);
            if rows.bytes() > MAX_STATE_BYTES {
                return Err(format!("it has more than {} MiB", MAX_STATE_BYTES >> 20));
            }
        }
        state.layouts.insert(part.name.clone(), part.layout.clone());
        state.rows.push((part.name.clone(), rows));
        state.book = Book::read(&part.schema)?.or(state.book);
    }
    state.unkeyed = snapshot.parts(uid, UNKEYED).await.map_err(told)?;
    Ok(state)
}

async fn wait(recorder: &Recorder, patience: Duration) {
    let mut waited = Duration::ZERO;
    while recorder.is_on() && waited < patience {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

fn recording(transform: &str, site: &Site, binding: &Binding, steps: Vec<Taped>, state: State) -> Recording {
    let (names, ports) = outputs(&site.bound, binding);
    let renumbered = |taped: Taped| Taped {
        given: taped.given.into_iter().filter_map(|(port, batch)| Some((*ports.get(&port)?, batch))).collect(),
        ..taped
    };
    let allowed_lateness_micros = match &site.bound.plan {
        OperatorPlan::Stateful(plan) => plan.allowed_lateness.micros(),
        _ => 0,
    };
    let about = About {
        pelton_recording: About::version(),
        transform: transform.into(),
        plugin_transform: binding.transform.clone(),
        plugin: binding.plugin().digest().into(),
        config: binding.config(),
        key: binding.key_names(),
        allowed_lateness_micros,
        tasks: site.tasks,
        outputs: names,
        book: state.book,
        layouts: state.layouts,
        unkeyed: state.unkeyed,
    };
    Recording { about, input: binding.input.clone() as SchemaRef, steps: steps.into_iter().map(renumbered).collect(), state: state.rows }
}

/// Names of outputs as the lab has them, and the number of each of the pipeline's ports among them.
fn outputs(bound: &BoundNode, binding: &Binding) -> (Vec<String>, BTreeMap<Port, usize>) {
    let mut names: Vec<String> = binding.outputs.iter().map(|output| output.tag.clone()).collect();
    let (own, late) = match &bound.plan {
        OperatorPlan::Plugin { ports, .. } => (ports.clone(), None),
        OperatorPlan::Stateful(plan) => (plan.ports.clone(), Some(plan.late_port)),
        _ => (Vec::new(), None),
    };
    let mut ports: BTreeMap<Port, usize> = BTreeMap::new();
    if let Some(port) = late {
        ports.insert(port, names.len() + 1);
    }
    if let Some(port) = bound.refusals.port {
        ports.insert(port, names.len());
    }
    ports.extend(own.iter().enumerate().map(|(number, port)| (*port, number)));
    names.push(ERRORS.into());
    if late.is_some() {
        names.push(LATE.into());
    }
    (names, ports)
}

fn count_in(steps: &[Taped]) -> usize {
    let rows = |taped: &Taped| match &taped.step {
        Step::Rows(batch) => batch.num_rows(),
        _ => 0,
    };
    steps.iter().map(rows).sum()
}

fn count_out(steps: &[Taped]) -> usize {
    steps.iter().flat_map(|taped| &taped.given).map(|(_, batch)| batch.num_rows()).sum()
}

/// Whole or not at all; gives its length.
fn write(recording: &Recording, file: &Path) -> Result<usize, String> {
    let bytes = recording.to_bytes()?;
    let beside = file.with_extension("part");
    let written = std::fs::write(&beside, &bytes).and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(bytes.len())
}

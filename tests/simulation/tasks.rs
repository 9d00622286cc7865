//! The pipeline inside a process: sources, operators by key, channels with barriers between them. Each row becomes one row for every sink;
//! at the end of all input each key becomes one more.

use crate::mutation::Mutation;
use crate::plan::{Output, Plan, Row, id_of_row, id_of_total, said};
use crate::random::Random;
use crate::store::State;
use pelton_core::Epoch;
use std::collections::{BTreeMap, VecDeque};

/// Messages in a channel.
const CHANNEL: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Message {
    Row { source: u8, position: usize, row: Row },
    Barrier,
    End,
}

/// What a task has sealed: its part of an epoch.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    /// By source.
    pub positions: BTreeMap<usize, usize>,
    /// By operator: whether it has given out its totals.
    pub ended: BTreeMap<usize, bool>,
    pub changed: State,
    pub outputs: Vec<Output>,
}

/// What came of a step.
#[derive(Debug)]
pub enum Stepped {
    /// The task waits for something.
    Nothing,
    /// A row has come in or gone on.
    Moved,
    /// A task (by number, sources first) has sealed an epoch, and perhaps ended.
    Sealed { task: usize, epoch: Epoch, ended: bool },
}

#[derive(Debug)]
struct Source {
    position: usize,
    barriers: usize,
    sealed: Epoch,
    ended: bool,
}

#[derive(Debug)]
struct Input {
    queue: VecDeque<Message>,
    aligned: bool,
    ended: bool,
}

/// Works on its keys.
#[derive(Debug)]
pub struct Operator {
    inputs: Vec<Input>,
    cells: State,
    changed: State,
    outputs: Vec<Output>,
    /// Outputs that the decider's sinks have still to be sent.
    pub unsent: Vec<Output>,
    /// Sent and not acknowledged.
    pub unacknowledged: usize,
    pub sealed: Epoch,
    /// It has aligned, or its inputs have ended, and it waits for acknowledgements.
    sealing: bool,
    pub ended: bool,
    /// Its totals are out, perhaps in an earlier life.
    totals: bool,
}

/// All tasks.
#[derive(Debug)]
pub struct Tasks {
    sources: Vec<Source>,
    pub operators: Vec<Operator>,
    /// By epoch, until it is persisted.
    pub sealed: BTreeMap<Epoch, Sealed>,
}

impl Tasks {
    /// At the end of an epoch.
    pub fn restore(plan: &Plan, epoch: Epoch, positions: &[usize], ended: &[bool], state: &State) -> Tasks {
        let input = || Input { queue: VecDeque::new(), aligned: false, ended: false };
        let cells =
            |operator: usize| state.iter().filter(move |((_, key), _)| plan.operator_of(*key) == operator).map(|(at, cell)| (*at, *cell));
        Tasks {
            sources: positions.iter().map(|position| Source { position: *position, barriers: 0, sealed: epoch, ended: false }).collect(),
            operators: (0..plan.operators)
                .map(|operator| Operator {
                    inputs: plan.sources.iter().map(|_| input()).collect(),
                    cells: cells(operator).collect(),
                    changed: State::new(),
                    outputs: Vec::new(),
                    unsent: Vec::new(),
                    unacknowledged: 0,
                    sealed: epoch,
                    sealing: false,
                    ended: false,
                    totals: ended[operator],
                })
                .collect(),
            sealed: BTreeMap::new(),
        }
    }

    pub fn count(&self) -> usize {
        self.sources.len() + self.operators.len()
    }

    /// A barrier for all sources.
    pub fn inject(&mut self) {
        self.sources.iter_mut().filter(|source| !source.ended).for_each(|source| source.barriers += 1);
    }

    /// Whether all shards of the sinks have closed the epochs before this one.
    pub fn closed_before(&self, epoch: Epoch) -> bool {
        self.operators.iter().all(|operator| operator.ended || operator.sealed + 1 >= epoch)
    }

    /// One step of a task.
    pub fn step(&mut self, plan: &Plan, task: usize, random: &mut Random) -> Stepped {
        if task < self.sources.len() { self.step_source(plan, task) } else { self.step_operator(plan, task, random) }
    }

    fn step_source(&mut self, plan: &Plan, at: usize) -> Stepped {
        let full = self.operators.iter().any(|operator| operator.inputs[at].queue.len() >= CHANNEL);
        let source = &mut self.sources[at];
        if source.ended || full {
            return Stepped::Nothing;
        }
        let rows = &plan.sources[at];
        if source.barriers == 0 && source.position < rows.len() {
            let (position, row) = (source.position, rows[source.position]);
            source.position += 1;
            self.operators[plan.operator_of(row.key)].inputs[at].queue.push_back(Message::Row { source: at as u8, position, row });
            return Stepped::Moved;
        }
        // A source that has nothing more may still be asked for a barrier before it says so.
        source.ended = source.barriers == 0;
        source.barriers = source.barriers.saturating_sub(1);
        source.sealed += 1;
        let (epoch, ended) = (source.sealed, source.ended);
        self.sealed.entry(epoch).or_default().positions.insert(at, source.position);
        let message = if ended { Message::End } else { Message::Barrier };
        self.operators.iter_mut().for_each(|operator| operator.inputs[at].queue.push_back(message));
        Stepped::Sealed { task: at, epoch, ended }
    }

    fn step_operator(&mut self, plan: &Plan, task: usize, random: &mut Random) -> Stepped {
        let at = task - self.sources.len();
        let operator = &mut self.operators[at];
        if operator.ended {
            return Stepped::Nothing;
        }
        if operator.sealing {
            let acknowledged = operator.unsent.is_empty() && operator.unacknowledged == 0;
            if !acknowledged && !plan.is(Mutation::SealBeforeAcknowledged) {
                return Stepped::Nothing;
            }
            return self.seal_operator(task);
        }
        let readable = |input: &&mut Input| !input.aligned && !input.queue.is_empty();
        let mut inputs: Vec<&mut Input> = operator.inputs.iter_mut().filter(readable).collect();
        if inputs.is_empty() {
            return Stepped::Nothing;
        }
        let chosen = random.below(inputs.len());
        let input = &mut inputs[chosen];
        match input.queue.pop_front() {
            Some(Message::Row { source, position, row }) => operator.take(source, position, row),
            Some(Message::Barrier) => input.aligned = true,
            _ => input.ended = true,
        }
        let all_ended = operator.inputs.iter().all(|input| input.ended);
        let all_aligned = operator.inputs.iter().all(|input| input.aligned || input.ended) || plan.is(Mutation::SkipAlignment);
        if all_ended && !operator.totals {
            operator.totals = true;
            operator.give_totals(plan);
        }
        operator.sealing = all_ended || all_aligned && operator.inputs.iter().any(|input| input.aligned);
        Stepped::Moved
    }

    fn seal_operator(&mut self, task: usize) -> Stepped {
        let at = task - self.sources.len();
        let operator = &mut self.operators[at];
        operator.ended = operator.inputs.iter().all(|input| input.ended);
        operator.inputs.iter_mut().for_each(|input| input.aligned = false);
        operator.sealing = false;
        operator.sealed += 1;
        let sealed = self.sealed.entry(operator.sealed).or_default();
        sealed.ended.insert(at, operator.totals);
        sealed.changed.append(&mut operator.changed);
        sealed.outputs.append(&mut operator.outputs);
        Stepped::Sealed { task, epoch: operator.sealed, ended: operator.ended }
    }
}

impl Operator {
    fn take(&mut self, source: u8, position: usize, row: Row) {
        let cell = self.cells.entry((source, row.key)).or_default();
        *cell = (cell.0 + 1, cell.1 + u64::from(row.value));
        self.changed.insert((source, row.key), *cell);
        let value = said(source, row.key, cell.0, cell.1);
        self.give(Output { id: id_of_row(source, position), value });
    }

    fn give_totals(&mut self, plan: &Plan) {
        for key in 0..plan.keys {
            let cells = || self.cells.iter().filter(|((_, of), _)| *of == key).map(|(_, cell)| cell);
            let (count, sum) = (cells().map(|cell| cell.0).sum(), cells().map(|cell| cell.1).sum());
            if count > 0 {
                self.give(Output { id: id_of_total(key), value: said(255, key, count, sum) });
            }
        }
    }

    fn give(&mut self, output: Output) {
        self.outputs.push(output);
        self.unsent.push(output);
    }
}

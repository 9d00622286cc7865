//! What a seed draws before the run: the pipeline, its input, who decides, and how much goes wrong. And the oracle: what comes out of that
//! pipeline, computed from the input alone.

use crate::mutation::Mutation;
use crate::random::{Random, digest};
use pelton_core::checkpoint::Settings;
use std::time::Duration;

/// A row of a source.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: u8,
    pub value: u32,
}

/// A row of a sink: which one it is, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    pub id: u32,
    pub value: u64,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeciderKind {
    Kafka,
    Postgres,
    /// The checkpoint store.
    Store,
}

/// What the checkpoint store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A folder: what is not synced is lost when the machine dies.
    Folder,
    /// Durable at once, but a request may arrive late, or its answer never.
    Objects,
}

/// A sink that does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerKind {
    /// A table with the row of its epoch.
    Table,
    /// A folder: what is staged is renamed.
    Files,
}

/// One seed's world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub mutation: Option<Mutation>,
    pub sources: Vec<Vec<Row>>,
    pub keys: u8,
    pub operators: usize,
    pub decider: DeciderKind,
    /// Sinks of the decider.
    pub own_sinks: usize,
    pub store: StoreKind,
    pub followers: Vec<FollowerKind>,
    /// A producer is used for one epoch only.
    pub fresh_producers: bool,
    pub settings: Settings,
    /// Every so many epochs the whole state is written.
    pub base_every: u64,
    /// How many things go wrong.
    pub faults: usize,
    /// Most milliseconds between two steps.
    pub step_ms: usize,
    /// What comes of each row, and of each key at the end.
    oracle: Vec<Vec<Output>>,
    totals: Vec<Option<Output>>,
}

/// Ids of what comes of a key at the end; below are those of rows.
const TOTALS: u32 = 1 << 20;

impl Plan {
    /// Everything of a seed.
    pub fn draw(random: &mut Random, mutation: Option<Mutation>) -> Plan {
        let keys = random.between(1, 4) as u8;
        let sources: Vec<Vec<Row>> = (0..random.between(1, 3)).map(|_| draw_rows(random, keys)).collect();
        let decider = [DeciderKind::Kafka, DeciderKind::Kafka, DeciderKind::Postgres, DeciderKind::Store][random.below(4)];
        let least_followers = usize::from(decider == DeciderKind::Store);
        let followers =
            (0..random.between(least_followers, 2)).map(|_| [FollowerKind::Table, FollowerKind::Files][random.below(2)]).collect();
        let oracle = sources.iter().enumerate().map(|(source, rows)| outputs_of(source as u8, rows)).collect();
        let totals = (0..keys).map(|key| total_of(key, &sources)).collect();
        Plan {
            mutation,
            keys,
            operators: random.between(1, 2),
            decider,
            own_sinks: if decider == DeciderKind::Store { 0 } else { random.between(1, 2) },
            store: [StoreKind::Folder, StoreKind::Objects][random.below(2)],
            followers,
            fresh_producers: random.chance(500),
            settings: Settings {
                interval: Duration::from_millis(random.between(100, 600) as u64),
                slow_after: Duration::from_millis(random.between(50, 1000) as u64),
                retained: random.between(1, 3) as u64,
            },
            base_every: random.between(1, 4) as u64,
            faults: random.between(0, 16),
            step_ms: random.between(10, 80),
            sources,
            oracle,
            totals,
        }
    }

    /// Whether the driver does this wrong.
    pub fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Who works on a key.
    pub fn operator_of(&self, key: u8) -> usize {
        key as usize % self.operators
    }

    /// What a sink has, in order of ids, when sources have come so far and these operators have ended.
    pub fn expected(&self, positions: &[usize], ended: &[bool]) -> Vec<Output> {
        let rows = self.oracle.iter().zip(positions).flat_map(|(outputs, position)| &outputs[..*position]).copied();
        let totals = (0..self.keys).filter(|key| ended[self.operator_of(*key)]).filter_map(|key| self.totals[key as usize]);
        rows.chain(totals).collect()
    }

    /// What a sink has in the end.
    pub fn everything(&self) -> Vec<Output> {
        let ends: Vec<usize> = self.sources.iter().map(Vec::len).collect();
        self.expected(&ends, &vec![true; self.operators])
    }
}

/// The id of what comes of a row.
pub fn id_of_row(source: u8, position: usize) -> u32 {
    (u32::from(source) << 16) + position as u32
}

/// The id of what comes of a key at the end.
pub fn id_of_total(key: u8) -> u32 {
    TOTALS + u32::from(key)
}

/// What is said of so many rows with such a sum. Source 255: of all.
pub fn said(source: u8, key: u8, count: u32, sum: u64) -> u64 {
    digest([u64::from(source), u64::from(key), u64::from(count), sum])
}

fn draw_rows(random: &mut Random, keys: u8) -> Vec<Row> {
    (0..random.between(0, 14)).map(|_| Row { key: random.below(keys as usize) as u8, value: random.below(1000) as u32 }).collect()
}

/// Of a key's rows up to each: how many, and their sum.
fn outputs_of(source: u8, rows: &[Row]) -> Vec<Output> {
    let upto = |position: usize| rows[..=position].iter().filter(move |row| row.key == rows[position].key);
    (0..rows.len())
        .map(|position| {
            let (count, sum) = (upto(position).count() as u32, upto(position).map(|row| u64::from(row.value)).sum());
            Output { id: id_of_row(source, position), value: said(source, rows[position].key, count, sum) }
        })
        .collect()
}

fn total_of(key: u8, sources: &[Vec<Row>]) -> Option<Output> {
    let rows = || sources.iter().flatten().filter(|row| row.key == key);
    let value = said(255, key, rows().count() as u32, rows().map(|row| u64::from(row.value)).sum());
    (rows().count() > 0).then_some(Output { id: id_of_total(key), value })
}

//! The part of `options.pelton` that says what outlives the process: `delivery`, `checkpoint`, `state`, `uids`.

use super::size;
use crate::fields::Fields;
use crate::report::Report;
use crate::source::Mark;
use crate::yaml::{Content, Entry};
use pelton_core::Duration;
use std::collections::BTreeMap;

/// What outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// How often a record counts in the output after a failure.
    pub delivery: Delivery,
    /// From one barrier to the next.
    pub interval: Duration,
    /// Where checkpoints go besides the state folder: a folder, or a URL of an object store.
    pub storage: Option<String>,
    /// Checkpoints that are kept.
    pub retain: u64,
    /// Whether `checkpoint` was given, so that the pipeline takes checkpoints even without a state folder.
    pub asked: bool,
    /// Where cells live.
    pub backend: Backend,
    /// Bytes of cells in memory; `None`: the state's share of `memory`.
    pub cache: Option<u64>,
    /// By full name of a transform: what its state is found by.
    pub uids: BTreeMap<String, String>,
}

impl Default for Durable {
    fn default() -> Durable {
        Durable {
            delivery: Delivery::ExactlyOnce,
            interval: Duration::from_micros(1_000_000),
            storage: None,
            retain: 3,
            asked: false,
            backend: Backend::Memory,
            cache: None,
            uids: BTreeMap::new(),
        }
    }
}

/// What a failure does to output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Sinks show rows by epochs: none is lost, none is there twice.
    ExactlyOnce,
    /// Sinks show rows as they come: none is lost, those of the epoch that failed may be there twice.
    AtLeastOnce,
}

/// Where cells live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In memory.
    Memory,
    /// In an embedded store on disk, with a cache in memory.
    Fjall,
}

/// The shortest and the longest time between two barriers.
const INTERVALS: std::ops::RangeInclusive<i64> = 100_000..=60_000_000;
/// Epochs that may be kept.
const RETAINED: std::ops::RangeInclusive<u64> = 1..=1_000;

/// Reads these keys; besides, where each name in `uids` stands.
pub(super) fn durable(fields: &mut Fields<'_>, report: &mut Report<'_>) -> (Durable, Vec<(String, Mark)>) {
    let mut durable = Durable::default();
    if let Some(entry) = fields.get("delivery") {
        durable.delivery = choice(entry, [("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)], report)
            .unwrap_or(durable.delivery);
    }
    if let Some(entry) = fields.get("checkpoint") {
        checkpoint(entry, &mut durable, report);
    }
    if let Some(entry) = fields.get("state") {
        let mut fields = Fields::of(Some(&entry.value), entry.mark, "`state`", report);
        if let Some(entry) = fields.get("backend") {
            let backends = [("memory", Backend::Memory), ("fjall", Backend::Fjall)];
            durable.backend = choice(entry, backends, report).unwrap_or(durable.backend);
        }
        durable.cache = fields.get("memory").and_then(|entry| size(entry, report));
        fields.finish(report);
    }
    let mut marks = Vec::new();
    if let Some(entry) = fields.get("uids") {
        for uid in Fields::of(Some(&entry.value), entry.mark, "`uids`", report).into_entries() {
            match &uid.value.content {
                Content::Text(text) if is_uid(text) => {
                    if durable.uids.values().any(|other| other == text) {
                        report.error(uid.value.mark, format!("two transforms have the uid `{text}`"));
                    }
                    durable.uids.insert(uid.key.clone(), text.clone());
                    marks.push((uid.key.clone(), uid.mark));
                }
                _ => report.error(uid.value.mark, "a uid is a text of 1 to 200 characters without control characters"),
            }
        }
    }
    (durable, marks)
}

fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= 200 && !text.chars().any(char::is_control)
}

fn checkpoint(entry: &Entry, durable: &mut Durable, report: &mut Report<'_>) {
    durable.asked = true;
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`checkpoint`", report);
    if let Some(interval) = fields.duration("interval", report) {
        if !INTERVALS.contains(&interval.micros()) {
            report.error(entry.value.mark_at(&["interval".to_string()]).unwrap_or(entry.mark), "`interval` must be from 100ms to 60s");
        }
        durable.interval = interval;
    }
    durable.storage = fields.text("storage", report).map(str::to_string);
    if let Some(entry) = fields.get("retain") {
        match &entry.value.content {
            Content::Number(number) if number.as_u64().is_some_and(|number| RETAINED.contains(&number)) => {
                durable.retain = number.as_u64().unwrap_or(durable.retain);
            }
            _ => report.error(entry.value.mark, "`retain` must be a whole number from 1 to 1000"),
        }
    }
    fields.finish(report);
}

fn choice<T: Copy, const N: usize>(entry: &Entry, choices: [(&str, T); N], report: &mut Report<'_>) -> Option<T> {
    let found = match &entry.value.content {
        Content::Text(text) => choices.iter().find(|(name, _)| name == text).map(|(_, value)| *value),
        _ => None,
    };
    if found.is_none() {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        report.error(entry.value.mark, format!("`{}` is {}", entry.key, names.join(" or ")));
    }
    found
}

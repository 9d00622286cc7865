//! What has to come of the records: the cuts say which versions each of them has met, and a map is all the state there is.

use crate::feed::Record;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Versions of the transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub mark: i64,
    pub tag: char,
    pub count: i64,
    pub plus: i64,
}

impl Versions {
    /// What the file says.
    pub const FIRST: Versions = Versions { mark: 1, tag: 'a', count: 1, plus: 0 };
}

/// The swaps that were made.
pub struct Model {
    /// From old to new: first offset of the new versions by partition, and these.
    cuts: Vec<(BTreeMap<i32, i64>, Versions)>,
}

impl Model {
    /// From the list that `pelton plugin history` gives.
    pub fn new(history: &[Value]) -> Model {
        // Digests are told apart by who had them first.
        let first = |transform: &str| {
            let changes = history.iter().flat_map(|made| made["changes"].as_array().unwrap());
            let mut of = changes.filter(|change| change["transform"] == transform);
            of.next().map(|change| change["base"]["plugin"].clone())
        };
        let (mark, count) = (first("Mark"), first("Count"));
        let version = |first: &Option<Value>, to: &Value| if first.as_ref() == Some(&to["plugin"]) { 1 } else { 2 };
        let (mut cuts, mut versions) = (Vec::new(), Versions::FIRST);
        for made in history {
            for change in made["changes"].as_array().unwrap() {
                let to = &change["to"];
                match change["transform"].as_str().unwrap() {
                    "Mark" => versions.mark = version(&mark, to),
                    "Tag" => versions.tag = to["config"]["fields"]["tag"]["expression"].as_str().unwrap().chars().nth(1).unwrap(),
                    _ => {
                        versions.count = version(&count, to);
                        versions.plus = to["config"]["plus"].as_i64().unwrap_or(0);
                    }
                }
            }
            cuts.push((offsets(made), versions));
        }
        Model { cuts }
    }

    /// What a record has met.
    fn of(&self, record: &Record) -> Versions {
        let after = |cut: &BTreeMap<i32, i64>| record.offset >= cut.get(&record.partition).copied().unwrap_or(0);
        let last = self.cuts.iter().rev().find(|(cut, _)| after(cut));
        last.map_or(Versions::FIRST, |(_, versions)| *versions)
    }

    /// How many different versions records have met.
    pub fn met(&self, records: &[Record]) -> usize {
        let mut met: Vec<Versions> = Vec::new();
        for versions in records.iter().map(|record| self.of(record)) {
            if !met.contains(&versions) {
                met.push(versions);
            }
        }
        met.len()
    }

    /// What is wrong with the rows, in words. `candidates`: the first record that one may have met, and how many there were.
    pub fn wrong(&self, records: &[Record], rows: &[Value], candidates: (i64, usize)) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut by_id: HashMap<i64, &Value> = HashMap::new();
        for row in rows {
            if by_id.insert(row["id"].as_i64().unwrap(), row).is_some() {
                wrong.push(format!("twice: {row}"));
            }
        }
        let mut state: HashMap<&str, (i64, i64)> = HashMap::new();
        // By user: the last version, and how often it was another.
        let mut turns: HashMap<&str, (i64, usize)> = HashMap::new();
        for record in records {
            let versions = self.of(record);
            let (count, sum) = state.entry(&record.user).or_default();
            *count += 1;
            *sum += record.number + versions.plus;
            let expected = serde_json::json!({
                "id": record.id, "user": record.user, "number": record.number,
                "marked": versions.mark, "tag": versions.tag, "rows": *count, "sum": *sum, "version": versions.count,
            });
            let version = by_id.get(&record.id).map_or(versions.count, |row| row["version"].as_i64().unwrap());
            let (last, turned) = turns.entry(&record.user).or_insert((version, 0));
            *turned += usize::from(std::mem::replace(last, version) != version);
            match by_id.get(&record.id) {
                Some(row) if **row == expected || record.id >= candidates.0 && is_candidates(row, &expected) => {}
                Some(row) => wrong.push(format!("{row}, expected {expected} (partition {}, offset {})", record.partition, record.offset)),
                None => wrong.push(format!("lost: {expected}")),
            }
        }
        // A key stays on its side: it comes to a candidate once, and goes from it once.
        let most = self.cuts.len() + 2 * candidates.1;
        wrong.extend(
            turns.iter().filter(|(_, (_, turned))| *turned > most).map(|(user, turned)| format!("{user} changes sides: {turned:?}")),
        );
        wrong
    }
}

/// The cut of a swap: the first offset of the new versions by partition.
pub fn offsets(made: &Value) -> BTreeMap<i32, i64> {
    let sources = made["positions"].as_object().expect("positions by source");
    let splits = sources.values().next().expect("the source").as_object().unwrap();
    // The partition stands last in the name of a split.
    let partition = |split: &str| split.rsplit(|at: char| !at.is_ascii_digit()).find(|part| !part.is_empty()).unwrap().parse().unwrap();
    splits.iter().map(|(split, at)| (partition(split), at.as_str().unwrap().parse().unwrap())).collect()
}

/// Whether a row is right but for the version, which is a candidate's.
fn is_candidates(row: &Value, expected: &Value) -> bool {
    let without = |row: &Value| {
        let mut row = row.clone();
        row["version"] = Value::Null;
        row
    };
    without(row) == without(expected)
}

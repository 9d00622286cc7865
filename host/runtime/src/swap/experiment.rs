//! What is known of a candidate beside the version that runs: on which rows it works, and how both fare.
//!
//! A *canary* takes the rows of some keys, by hash: its output counts, that of the running version for them does not. A *shadow* sees all rows, and what it gives out is
//! compared and dropped.

use crate::message::Message;
use crate::operator::Out;
use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::compute::kernels::cmp::distinct;
use arrow::util::display::array_value_to_string;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Shares are of so many.
pub const ALL: u32 = 10_000;
/// Rows that differ and are shown.
const SAMPLES: usize = 5;

/// What a candidate is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its output counts for the keys of its share.
    Canary,
    /// Its output is compared and dropped.
    Shadow,
}

/// A candidate in all tasks of its transform.
#[derive(Debug)]
pub struct Experiment {
    /// What for.
    pub kind: Kind,
    /// Columns whose values say on which side a row is; none: of a transform with state its key, else where the row was read.
    pub by: Vec<String>,
    share: AtomicU32,
    over: AtomicBool,
    figures: Mutex<Figures>,
}

/// How one version fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Rows that it was given.
    pub rows: u64,
    /// Of these: refused.
    pub refused: u64,
    /// Rows that it gave out.
    pub out: u64,
    /// Time that it took, nanoseconds.
    pub nanos: u64,
}

/// How both fare.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The version that runs.
    pub current: Side,
    /// The candidate.
    pub candidate: Side,
    /// Rows given out that were compared.
    pub compared: u64,
    /// Of these: other in some column, or there on one side only.
    pub differing: u64,
    /// By column: rows that differ there.
    pub columns: BTreeMap<String, u64>,
    /// Some of them, the running version's first.
    pub samples: Vec<[String; 2]>,
    /// Why the candidate works no more.
    pub failure: Option<String>,
}

impl Experiment {
    /// Of this share, in parts of [`ALL`].
    pub fn new(kind: Kind, by: Vec<String>, share: u32) -> Experiment {
        Experiment { kind, by, share: AtomicU32::new(share), over: AtomicBool::new(false), figures: Mutex::default() }
    }

    /// Whether rows with this hash are the candidate's.
    pub fn takes(&self, hash: u64) -> bool {
        ((hash >> 32) % u64::from(ALL)) < u64::from(self.share.load(Relaxed))
    }

    /// A larger share: keys stay on the candidate's side.
    pub fn raise(&self, share: u32) {
        self.share.fetch_max(share, Relaxed);
    }

    /// The candidate works no more.
    pub fn end(&self, failure: Option<String>) {
        if let Some(failure) = failure {
            self.with(|figures| figures.failure.get_or_insert(failure).clone());
        }
        self.over.store(true, Relaxed);
    }

    /// Whether it does not.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// How both fare now.
    pub fn figures(&self) -> Figures {
        self.with(|figures| figures.clone())
    }

    /// Takes note of what came of rows.
    pub fn fared(&self, candidate: bool, rows: u64, out: &Out, took: Duration) {
        let given = out.messages.iter().map(|(_, message)| match message {
            Message::Data(batch) => batch.num_rows() as u64,
            _ => 0,
        });
        let given = given.sum::<u64>().saturating_sub(out.account.errors);
        self.with(|figures| {
            let side = if candidate { &mut figures.candidate } else { &mut figures.current };
            side.rows += rows;
            side.refused += out.account.errors;
            side.out += given;
            side.nanos += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        });
    }

    /// Compares what two versions have made of the same rows.
    pub fn compare(&self, current: &Out, candidate: &Out) {
        let ports = |out: &Out| {
            let mut by_port: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
            for (port, message) in &out.messages {
                if let (Some(port), Message::Data(batch)) = (port, message) {
                    by_port.entry(*port).or_default().push(batch.rows.clone());
                }
            }
            by_port
        };
        let (ours, theirs) = (ports(current), ports(candidate));
        let all: std::collections::BTreeSet<usize> = ours.keys().chain(theirs.keys()).copied().collect();
        for port in all {
            let joined = |side: &BTreeMap<usize, Vec<RecordBatch>>| {
                side.get(&port).and_then(|batches| concat_batches(&batches[0].schema(), batches).ok())
            };
            self.with(|figures| figures.compare(joined(&ours), joined(&theirs)));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Figures) -> T) -> T {
        look(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Figures {
    fn compare(&mut self, ours: Option<RecordBatch>, theirs: Option<RecordBatch>) {
        let rows = |batch: &Option<RecordBatch>| batch.as_ref().map_or(0, RecordBatch::num_rows);
        let (own, other) = (rows(&ours), rows(&theirs));
        self.compared += own.max(other) as u64;
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            self.differing += own.max(other) as u64;
            return;
        };
        if own != other {
            // Which row belongs to which is not known.
            self.differing += own.abs_diff(other) as u64;
            return;
        }
        let mut differs = vec![false; own];
        for (field, ours) in ours.schema().fields().iter().zip(ours.columns()) {
            let Some(theirs) = theirs.column_by_name(field.name()) else { continue };
            let mut count = 0;
            for row in rows_that_differ(ours, theirs) {
                differs[row] = true;
                count += 1;
            }
            if count > 0 {
                *self.columns.entry(field.name().clone()).or_default() += count;
            }
        }
        for row in (0..own).filter(|row| differs[*row]) {
            self.differing += 1;
            if self.samples.len() < SAMPLES {
                self.samples.push([told(&ours, row), told(&theirs, row)]);
            }
        }
    }

    /// Why a candidate is to go, by what is allowed.
    pub fn verdict(&self, allowed: &Allowed) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(format!("it failed: {failure}"));
        }
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        if self.candidate.rows < allowed.rows {
            return None;
        }
        let (now, then) = (share(self.candidate.refused, self.candidate.rows), share(self.current.refused, self.current.rows));
        if now > then + allowed.refused {
            return Some(format!("it refuses {:.2} % of its rows, the version that runs {:.2} %", now * 100.0, then * 100.0));
        }
        let slower = self.slower();
        if slower > allowed.slower {
            return Some(format!("it takes {slower:.2} times as long for a row"));
        }
        let differing = share(self.differing, self.compared);
        (differing > allowed.differing).then(|| format!("{:.2} % of the rows it gives out differ", differing * 100.0))
    }

    /// Time for a row against that of the version that runs; 1 where one of them has had none.
    pub fn slower(&self) -> f64 {
        let of = |side: &Side| side.nanos as f64 / side.rows as f64;
        if self.current.rows == 0 || self.candidate.rows == 0 || self.current.nanos == 0 {
            return 1.0;
        }
        of(&self.candidate) / of(&self.current)
    }
}

/// From when on a candidate goes.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowed {
    /// Rows that the candidate has worked on before anything is concluded.
    pub rows: u64,
    /// The share of refused rows that may come on top of that of the running version.
    pub refused: f64,
    /// Times as long for a row.
    pub slower: f64,
    /// The share of rows given out that may differ, where they are compared.
    pub differing: f64,
}

impl Default for Allowed {
    fn default() -> Allowed {
        Allowed { rows: 1_000, refused: 0.01, slower: 3.0, differing: 1.0 }
    }
}

fn rows_that_differ(ours: &dyn Array, theirs: &dyn Array) -> Vec<usize> {
    if ours.to_data() == theirs.to_data() {
        return Vec::new();
    }
    match distinct(&ours, &theirs) {
        Ok(distinct) => (0..distinct.len()).filter(|row| distinct.value(*row)).collect(),
        // Nested values and the like are compared one by one.
        Err(_) => (0..ours.len()).filter(|row| ours.slice(*row, 1).to_data() != theirs.slice(*row, 1).to_data()).collect(),
    }
}

fn told(rows: &RecordBatch, row: usize) -> String {
    let value = |column| array_value_to_string(column, row).unwrap_or_default();
    let fields = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| format!("{}={}", field.name(), value(column)))
        .collect::<Vec<_>>();
    fields.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn rows(numbers: &[i64], texts: &[&str]) -> Option<RecordBatch> {
        let columns: Vec<(&str, Arc<dyn Array>)> =
            vec![("n", Arc::new(Int64Array::from(numbers.to_vec()))), ("t", Arc::new(StringArray::from(texts.to_vec())))];
        RecordBatch::try_from_iter(columns).ok()
    }

    #[test]
    fn what_differs_is_counted_by_row_and_by_column() {
        let mut figures = Figures::default();
        figures.compare(rows(&[1, 2, 3], &["a", "b", "c"]), rows(&[1, 5, 6], &["a", "b", "x"]));
        assert_eq!((figures.compared, figures.differing), (3, 2));
        assert_eq!(figures.columns, BTreeMap::from([("n".to_string(), 2), ("t".to_string(), 1)]));
        assert_eq!(figures.samples[1], ["n=3 t=c".to_string(), "n=6 t=x".to_string()]);
        figures.compare(rows(&[1], &["a"]), None);
        figures.compare(rows(&[1, 1], &["a", "a"]), rows(&[1], &["a"]));
        assert_eq!((figures.compared, figures.differing), (6, 4));
    }

    #[test]
    fn a_candidate_goes_when_it_is_worse_than_is_allowed_and_not_before_it_has_had_rows() {
        let side = |rows, refused, nanos| Side { rows, refused, out: rows, nanos };
        let figures =
            |candidate| Figures { current: side(10_000, 100, 10_000), candidate, compared: 100, differing: 10, ..Figures::default() };
        let allowed = Allowed::default();
        assert_eq!(figures(side(999, 999, 999_000)).verdict(&allowed), None);
        assert_eq!(figures(side(1_000, 20, 1_000)).verdict(&allowed), None);
        assert!(figures(side(1_000, 21, 1_000)).verdict(&allowed).unwrap().contains("refuses 2.10 %"));
        assert!(figures(side(1_000, 0, 3_100)).verdict(&allowed).unwrap().contains("3.10 times"));
        let strict = Allowed { differing: 0.05, ..allowed };
        assert!(figures(side(1_000, 0, 1_000)).verdict(&strict).unwrap().contains("10.00 % of the rows"));
        let failed = Figures { failure: Some("a trap".into()), ..Figures::default() };
        assert_eq!(failed.verdict(&allowed), Some("it failed: a trap".into()));
    }

    #[test]
    fn a_larger_share_keeps_the_keys_of_a_smaller() {
        let experiment = Experiment::new(Kind::Canary, vec![], 100);
        let hashes: Vec<u64> = (0..100_000u64).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let before: Vec<u64> = hashes.iter().copied().filter(|hash| experiment.takes(*hash)).collect();
        assert!((500..2_000).contains(&before.len()), "about one of a hundred: {}", before.len());
        experiment.raise(5_000);
        assert!(before.iter().all(|hash| experiment.takes(*hash)));
        experiment.raise(ALL);
        assert!(hashes.iter().all(|hash| experiment.takes(*hash)));
    }
}

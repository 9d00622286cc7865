//! What one operator of one task has counted: kept beside the shared figures, because a checkpoint needs the counts as they were at its barrier.
//!
//! ```text
//! rows in | led | filtered | errors | late | bytes | rows out by port      each u64, little-endian
//! ```
//!
//! The user's metrics stand beside them, as JSON.

use crate::metrics::{Account, NodeMetrics, UserMetrics, merge_user};
use std::sync::atomic::Ordering::Relaxed;

/// The partition under which a task keeps the counts of an operator.
pub const COUNTS: &str = "counts";
/// The partition under which it keeps those of the user.
pub const METRICS: &str = "metrics";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    rows_in: u64,
    account: Account,
    bytes: u64,
    rows_out: Vec<u64>,
    /// Only of what all tasks had counted before a restart: operators keep their own.
    user: UserMetrics,
}

impl Counts {
    /// Of an operator with so many outputs.
    pub fn new(ports: usize) -> Counts {
        Counts { rows_out: vec![0; ports], ..Counts::default() }
    }

    /// Rows came in.
    pub fn came(&mut self, metrics: &NodeMetrics, rows: u64) {
        self.rows_in += rows;
        metrics.rows_in.fetch_add(rows, Relaxed);
    }

    /// Bytes were read.
    pub fn read(&mut self, metrics: &NodeMetrics, bytes: u64) {
        self.bytes += bytes;
        metrics.bytes.fetch_add(bytes, Relaxed);
    }

    /// Rows went out.
    pub fn went(&mut self, metrics: &NodeMetrics, port: usize, rows: u64) {
        self.rows_out[port] += rows;
        metrics.rows_out[port].fetch_add(rows, Relaxed);
    }

    /// How rows fared in one call.
    pub fn fared(&mut self, metrics: &NodeMetrics, account: Account, drift: Option<i64>) {
        self.rows_in += account.copies;
        self.account.led += account.led;
        self.account.filtered += account.filtered;
        self.account.errors += account.errors;
        self.account.late += account.late;
        metrics.account(account, drift);
    }

    /// As unkeyed state.
    pub fn encode(&self) -> Vec<u8> {
        let Account { led, filtered, errors, late, .. } = self.account;
        let fixed = [self.rows_in, led, filtered, errors, late, self.bytes];
        fixed.iter().chain(&self.rows_out).flat_map(|count| count.to_le_bytes()).collect()
    }

    /// The user's metrics as unkeyed state, where there are any.
    pub fn encode_user(user: &UserMetrics) -> Option<(String, Vec<u8>)> {
        (!user.is_empty()).then(|| (METRICS.into(), serde_json::to_vec(user).expect("names and numbers are JSON")))
    }

    /// All of it, as unkeyed state.
    pub fn partitions(&self) -> Vec<(String, Vec<u8>)> {
        std::iter::once((COUNTS.to_string(), self.encode())).chain(Counts::encode_user(&self.user)).collect()
    }

    /// What all tasks of an operator had counted before a restart. What cannot be read is not counted.
    pub fn of_all(unkeyed: &[(String, Vec<u8>)]) -> Counts {
        let mut all = Counts::default();
        for (_, bytes) in unkeyed.iter().filter(|(partition, _)| partition == COUNTS) {
            let mut counts = bytes.chunks_exact(8).map(|count| u64::from_le_bytes(count.try_into().unwrap_or_default()));
            let Account { led, filtered, errors, late, .. } = &mut all.account;
            for figure in [&mut all.rows_in, led, filtered, errors, late, &mut all.bytes] {
                *figure += counts.next().unwrap_or_default();
            }
            for (port, count) in counts.enumerate() {
                all.rows_out.resize(all.rows_out.len().max(port + 1), 0);
                all.rows_out[port] += count;
            }
        }
        for (_, bytes) in unkeyed.iter().filter(|(partition, _)| partition == METRICS) {
            merge_user(&mut all.user, &serde_json::from_slice(bytes).unwrap_or_default());
        }
        all
    }

    /// Adds them to the figures of the node.
    pub fn add_to(&self, metrics: &NodeMetrics) {
        let Account { led, filtered, errors, late, .. } = self.account;
        let of = [&metrics.rows_in, &metrics.led, &metrics.filtered, &metrics.errors, &metrics.late, &metrics.bytes];
        let counts = [self.rows_in, led, filtered, errors, late, self.bytes];
        for (figure, count) in of.into_iter().chain(&metrics.rows_out).zip(counts.iter().chain(&self.rows_out)) {
            figure.fetch_add(*count, Relaxed);
        }
        merge_user(&mut metrics.user.lock().expect("no holder of this lock panics"), &self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::UserMetric;

    #[test]
    fn counts_of_all_tasks_come_back() {
        let metrics = || NodeMetrics::new("n".into(), "Filter".into(), vec!["".into(), "errors".into()]);
        let (before, after) = (metrics(), metrics());
        let mut unkeyed = vec![("input watermark".to_string(), vec![1])];
        for task in 1..=2 {
            let mut counts = Counts::new(2);
            counts.came(&before, 10 * task);
            counts.fared(&before, Account { led: 7, filtered: 2, errors: 1, late: 0, copies: 3 }, None);
            counts.went(&before, 1, task);
            counts.read(&before, 100);
            unkeyed.push((COUNTS.to_string(), counts.encode()));
            let observed = UserMetric::Distribution { count: task, sum: 2.5, min: -1.0, max: task as f64 };
            let user = UserMetrics::from([("big".to_string(), UserMetric::Counter { value: task as f64 }), ("size".to_string(), observed)]);
            merge_user(&mut before.user.lock().unwrap(), &user);
            unkeyed.extend(Counts::encode_user(&user));
        }
        let all = Counts::of_all(&unkeyed);
        all.add_to(&after);
        assert_eq!(Counts::of_all(&all.partitions()), all, "they can be written as one");
        assert_eq!(all.user["size"], UserMetric::Distribution { count: 3, sum: 5.0, min: -1.0, max: 2.0 });
        let now = pelton_core::Instant::MIN;
        assert_eq!(serde_json::to_value(after.snapshot(now)).ok(), serde_json::to_value(before.snapshot(now)).ok());
        assert_eq!(after.rows_in.load(Relaxed), 36);
    }
}

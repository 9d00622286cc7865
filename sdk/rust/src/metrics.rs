//! Metrics of the author: statics that a transform lists and its code uses.
//!
//! ```
//! use pelton_sdk::prelude::*;
//! static HITS: Counter = Counter::new("hits");
//! # #[derive(Row)] struct Line<'a> { line: &'a str }
//! #[transform(metrics(HITS))]
//! fn keep(row: Line<'_>) -> bool {
//!     HITS.add(1);
//!     row.line.len() > 3
//! }
//! ```
//!
//! Observations go to a journal, which is counted when the row has succeeded and thrown away when it has failed; so a row that fails
//! leaves no trace in metrics either.

use std::cell::RefCell;

use crate::wire::MetricUpdate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Distribution,
}

/// A metric's declaration. Two of the same name are two metrics, so it is known by its address.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    /// UCUM unit such as `By` or `ms`; may be empty.
    pub unit: &'static str,
}

macro_rules! handle {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Debug)]
        pub struct $name(Metric);

        impl $name {
            pub const fn new(name: &'static str) -> $name {
                $name(Metric { name, kind: MetricKind::$name, unit: "" })
            }
            /// What the macro lists.
            #[doc(hidden)]
            pub const fn declaration(&'static self) -> &'static Metric {
                &self.0
            }
            /// With a UCUM unit such as `By` or `ms`.
            pub const fn with_unit(name: &'static str, unit: &'static str) -> $name {
                $name(Metric { name, kind: MetricKind::$name, unit })
            }
        }

    };
}

handle!(
    /// A sum that only grows.
    Counter
);
handle!(
    /// The last value that was set.
    Gauge
);
handle!(
    /// Count, sum, least and greatest of what was observed.
    Distribution
);

impl Counter {
    pub fn add(&'static self, count: u64) {
        observe(&self.0, count as f64);
    }
}

impl Gauge {
    pub fn set(&'static self, value: f64) {
        observe(&self.0, value);
    }
}

impl Distribution {
    pub fn observe(&'static self, value: f64) {
        observe(&self.0, value);
    }
}

thread_local! {
    static JOURNAL: RefCell<Vec<(&'static Metric, f64)>> = const { RefCell::new(Vec::new()) };
}

fn observe(metric: &'static Metric, value: f64) {
    JOURNAL.with_borrow_mut(|journal| journal.push((metric, value)));
}

/// The metrics of one call.
pub(crate) struct Collected {
    listed: &'static [&'static Metric],
    updates: Vec<MetricUpdate>,
}

impl Collected {
    pub(crate) fn new(listed: &'static [&'static Metric]) -> Collected {
        discard();
        Collected { listed, updates: vec![] }
    }

    /// Counts what the row that has just succeeded observed.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        JOURNAL.with_borrow_mut(|journal| {
            if !journal.is_empty() {
                self.count(journal);
            }
        });
    }

    fn count(&mut self, journal: &mut Vec<(&'static Metric, f64)>) {
        for (metric, value) in journal.drain(..) {
            let Some(number) = self.listed.iter().position(|listed| std::ptr::eq(*listed, metric)) else {
                panic!("the metric `{}` is not listed: write #[transform(metrics(..))] with its name", metric.name);
            };
            let number = number as u32;
            match self.updates.iter_mut().find(|update| update.metric == number) {
                None => self.updates.push(MetricUpdate { metric: number, count: 1, sum: value, min: value, max: value }),
                Some(update) => {
                    update.count += 1;
                    update.sum += value;
                    update.min = update.min.min(value);
                    // A gauge's `max` is its last value.
                    update.max = if metric.kind == MetricKind::Gauge { value } else { update.max.max(value) };
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<MetricUpdate> {
        self.updates
    }
}

/// Throws away what the row that has just failed observed.
#[cold]
pub(crate) fn discard() {
    JOURNAL.with_borrow_mut(Vec::clear);
}

//! Rows that are there against rows that must be there.

use crate::outputs::Row;
use std::collections::{BTreeMap, HashMap};

/// How many differences are shown.
const SHOWN: usize = 5;

/// What is not as it must be.
#[derive(Default)]
pub struct Verdict {
    /// Must be there and is not.
    pub lost: usize,
    /// Is there once more than it must.
    pub duplicated: usize,
    /// Says something else, or must not be there.
    pub wrong: usize,
    /// The first of them, in words.
    pub shown: Vec<String>,
}

impl Verdict {
    /// Of one output.
    pub fn of(output: &str, mut expected: BTreeMap<String, String>, rows: Vec<Row>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut seen: HashMap<String, String> = HashMap::with_capacity(rows.len());
        for (key, says) in rows {
            if let Some(before) = seen.get(&key) {
                verdict.duplicated += 1;
                verdict.show(format!("{output}: `{key}` is there again: {says} after {before}"));
                continue;
            }
            match expected.remove(&key) {
                Some(must) if must == says => {}
                must => {
                    verdict.wrong += 1;
                    verdict.show(format!("{output}: `{key}` is {says}, and must be {}", must.as_deref().unwrap_or("absent")));
                }
            }
            seen.insert(key, says);
        }
        verdict.lost = expected.len();
        expected.iter().take(SHOWN).for_each(|(key, must)| verdict.show(format!("{output}: `{key}` is lost: {must}")));
        verdict
    }

    /// Nothing is amiss.
    pub fn is_right(&self) -> bool {
        self.lost + self.duplicated + self.wrong == 0
    }

    /// Of both.
    pub fn and(mut self, other: Verdict) -> Verdict {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.wrong += other.wrong;
        self.shown.extend(other.shown);
        self
    }

    fn show(&mut self, text: String) {
        if self.shown.len() < SHOWN * 3 {
            self.shown.push(text);
        }
    }
}

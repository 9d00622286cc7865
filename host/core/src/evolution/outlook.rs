//! Whether a plugin can take over the state of another, and whether that one could take it back: known before anything is stopped or started.
//!
//! Both are asked of declarations alone: those of the former plugin, from its descriptor while it is at hand or from the book of a checkpoint
//! ([`Book::declared`]), and those of the next one. What is answered for all cells holds for each: also for those of earlier eras that no sweep
//! has reached yet, and, of the way back, for a mixture of cells that the next plugin has and has not touched.

use super::book::{Book, Change, Declared, Evolved, Problem};

/// What a passage asks of the cells that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Nothing: every value stays as it is.
    Kept,
    /// The host converts some by its rules, or drops what was named.
    ByRules,
    /// The plugin's `migrate` converts some; it may refuse a value, which stops the pipeline before anything of it is written.
    ByMigration,
}

/// How state goes on with a plugin.
#[derive(Clone, Debug)]
pub struct Passage {
    /// The most that any state needs.
    pub way: Way,
    /// What that plugin is started with; its report names each state.
    pub evolved: Evolved,
}

/// What would become of state if the next plugin took it over.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// With the next plugin.
    pub there: Passage,
    /// With the former one again, at any time after: states and timers that only the next one has are dropped then (`report.dropped`). Or why not.
    pub back: Result<Passage, Vec<Problem>>,
}

/// Looks ahead. `dropped` says which states and timers may be lost, by name; without them, all that has no place with the next plugin is a reason to
/// refuse.
pub fn outlook(book: &Book, former: &Declared, next: &Declared, dropped: &dyn Fn(&str) -> bool) -> Result<Outlook, Vec<Problem>> {
    let there = passage(book, next, dropped)?;
    let is_new = |name: &str| !former.names().any(|known| known == name);
    let back = passage(&there.evolved.book, former, &is_new);
    Ok(Outlook { there, back })
}

fn passage(book: &Book, declared: &Declared, dropped: &dyn Fn(&str) -> bool) -> Result<Passage, Vec<Problem>> {
    let evolved = book.evolve(declared, dropped)?;
    let changes = evolved.plans.values().flatten();
    let way = changes.map(|step| match step.change {
        _ if step.is_none() => Way::Kept,
        Change::Migrate { .. } => Way::ByMigration,
        Change::Convert(_) | Change::Clear => Way::ByRules,
    });
    Ok(Passage { way: way.max().unwrap_or(Way::Kept), evolved })
}

impl Declared {
    fn names(&self) -> impl Iterator<Item = &str> {
        let timers = self.timers.iter().map(|timer| timer.name.as_str());
        self.states.iter().map(|state| state.name.as_str()).chain(timers)
    }
}

impl Book {
    /// What the plugin that wrote it last had declared, as far as a checkpoint keeps it: not what its `migrate` takes, so that a way back by migration is
    /// not seen.
    pub fn declared(&self) -> Declared {
        Declared {
            states: self.present().states.iter().map(|placed| placed.state.clone()).collect(),
            timers: self.timers.iter().flatten().cloned().collect(),
            fixed: false,
        }
    }
}

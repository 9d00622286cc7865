//! What a plugin's state is made of, as a checkpoint keeps it, and what becomes of it with another plugin.
//!
//! A *place* is where a state is kept: a column of values or a set of items, numbered in the order in which they came. A timer's number
//! is its tag. Both outlive the plugin's own numbering: a state is found by its name, and stays where it is when others come and go.
//!
//! A list or map whose items change moves: its items go from the former set to a new one. So each item says by where it is of which type it is, and a cell
//! with very many of them can be converted in portions, with checkpoints in between.

use super::rules::{Conversion, resolve};
use super::types::Field;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One value.
    Value,
    /// Items in the order of appending.
    List,
    /// Values by key.
    Map,
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The watermark.
    Event,
    /// The time of day.
    Processing,
}

/// A state as a plugin declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it is found by.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Values are in the plain encoding.
    pub plain: bool,
    /// Their type, if it was told.
    pub value: Option<Field>,
    /// The same for keys.
    pub key: Option<Field>,
    /// The author's version of the type.
    pub version: u32,
    /// The clock by which what is written expires.
    pub expires_by: Option<Clock>,
    /// What the plugin's `migrate` brings to this version.
    #[serde(skip)]
    pub migrates: Vec<Migration>,
}

/// Another version of a state that `migrate` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Which.
    pub version: u32,
    /// The type that it takes, if it was told.
    pub value: Option<Field>,
    /// The same for keys.
    pub key: Option<Field>,
}

/// A timer as a plugin declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// What it is found by.
    pub name: String,
    /// The clock that fires it.
    pub clock: Clock,
}

/// What a plugin declares; its own numbers are the positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// States.
    pub states: Vec<State>,
    /// Timers.
    pub timers: Vec<Timer>,
    /// These states and no others belong together: accumulators of one grouping.
    pub fixed: bool,
}

/// The format that is written. Every format from 1 is read; fields may be added within one, with a default.
const FORMAT: u32 = 1;
/// Places and timers of an operator in all its life: a row tells them apart by a byte.
const MAX_PLACES: usize = 255;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// [`FORMAT`].
    format: u32,
    /// By place: it is a column of values, and no set of items.
    pub columns: Vec<bool>,
    /// By tag; `None`: one that was dropped.
    pub timers: Vec<Option<Timer>>,
    /// Of which there may be cells, from old to new; the last is what is written now.
    pub eras: Vec<Era>,
}

/// A list of states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Era {
    /// Its number, as it stands in cells.
    pub number: u32,
    /// The states with their places.
    pub states: Vec<Placed>,
}

/// A state and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its place.
    pub place: usize,
    /// Of a list or map: where it was before; cells of earlier eras may have items there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<usize>,
    /// What it is.
    pub state: State,
}

/// What becomes of a place when a cell is brought to the present.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Its contents are dropped.
    Clear,
    /// The host converts it; the bytes may stay as they are.
    Convert(Conversion),
    /// The plugin's `migrate` does.
    Migrate {
        /// The state's name.
        state: String,
        /// The version that is stored.
        version: u32,
        /// How the host brings what is stored to the type that `migrate` takes.
        before: Conversion,
    },
}

/// What becomes of one place of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where it is stored.
    pub from: usize,
    /// Where it is kept now; of a value the same.
    pub to: usize,
    /// What it becomes.
    pub change: Change,
}

/// What becomes of a cell of an era.
pub type Plan = Vec<Step>;

/// State that goes on with a plugin.
#[derive(Clone, Debug)]
pub struct Evolved {
    /// The book from now on.
    pub book: Book,
    /// By the plugin's number of a state: its place.
    pub places: Vec<usize>,
    /// By the plugin's number of a timer: its tag.
    pub tags: Vec<usize>,
    /// By era that is not the present one.
    pub plans: BTreeMap<u32, Plan>,
    /// What is said of it before a start.
    pub report: Report,
}

/// What becomes of each state and timer, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// As it is.
    pub kept: Vec<String>,
    /// With how.
    pub migrated: Vec<String>,
    /// Asked for by name.
    pub dropped: Vec<String>,
    /// Empty so far.
    pub new: Vec<String>,
}

/// Why state cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the state or timer.
    pub name: String,
    /// `state` or `timer`.
    pub what: &'static str,
    /// What is the matter.
    pub why: String,
    /// What to do, apart from dropping it.
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.what, self.name, self.why)
    }
}

impl Evolved {
    /// Of an operator that has nothing stored.
    pub fn new(declared: &Declared) -> Evolved {
        Evolved {
            book: Book::new(declared),
            places: (0..declared.states.len()).collect(),
            tags: (0..declared.timers.len()).collect(),
            plans: BTreeMap::new(),
            report: Report { new: declared.states.iter().map(|state| state.name.clone()).collect(), ..Report::default() },
        }
    }
}

impl Book {
    /// Of an operator that has nothing stored.
    pub fn new(declared: &Declared) -> Book {
        let states = declared.states.iter().cloned().enumerate();
        let states = states.map(|(place, state)| Placed { place, former: Vec::new(), state });
        Book {
            format: FORMAT,
            columns: declared.states.iter().map(|state| state.kind == Kind::Value).collect(),
            timers: declared.timers.iter().cloned().map(Some).collect(),
            eras: vec![Era { number: 0, states: states.collect() }],
        }
    }

    /// Reads what [`Book::write`] gave; `None`: nothing was told.
    pub fn read(bytes: &[u8]) -> Result<Option<Book>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let book: Book =
            serde_json::from_slice(bytes).map_err(|error| format!("what the checkpoint says of plugin state is damaged: {error}"))?;
        match book.format {
            FORMAT if !book.eras.is_empty() => Ok(Some(book)),
            FORMAT => Err("what the checkpoint says of plugin state is damaged: it has no era".into()),
            newer => Err(format!("what the checkpoint says of plugin state has format {newer}; this host reads up to {FORMAT}")),
        }
    }

    /// As a manifest keeps it.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a book has no keys but names")
    }

    /// What is written now.
    pub fn present(&self) -> &Era {
        self.eras.last().expect("a book has an era")
    }

    /// The same once no cell of an earlier era is left.
    pub fn settled(&self) -> Book {
        Book { eras: vec![self.present().clone()], ..self.clone() }
    }

    /// Of two tasks of an operator, which know the same but for which eras they still have.
    pub fn join(&self, other: &Book) -> Book {
        let all: BTreeMap<u32, &Era> = self.eras.iter().chain(&other.eras).map(|era| (era.number, era)).collect();
        Book { eras: all.into_values().cloned().collect(), ..self.clone() }
    }

    /// Goes on with what a plugin declares. `dropped` says which states and timers may be lost, by name.
    pub fn evolve(&self, declared: &Declared, dropped: &dyn Fn(&str) -> bool) -> Result<Evolved, Vec<Problem>> {
        self.check_fixed(declared)?;
        let dropped: &dyn Fn(&str) -> bool = if declared.fixed { &|_| false } else { dropped };
        let mut next = Next { book: self.clone(), report: Report::default(), problems: Vec::new() };
        let tags = next.timers(&declared.timers, dropped);
        let states = next.places(self.present(), &declared.states, dropped);
        let places = states.iter().map(|placed| placed.place).collect();
        let mut changed = false;
        let present = self.present().number;
        let mut plans: BTreeMap<u32, Plan> = BTreeMap::new();
        for (number, era) in self.eras.iter().enumerate() {
            let plan = next.plan(&self.eras[number..], &states);
            changed |= era.number == present && plan.iter().any(|step| !step.is_none());
            plans.insert(era.number, plan);
        }
        let Next { mut book, report, problems } = next;
        if !problems.is_empty() {
            return Err(problems);
        }
        if changed {
            book.eras.push(Era { number: present + 1, states });
        } else {
            plans.remove(&present);
            if let Some(era) = book.eras.last_mut() {
                era.states = states;
            }
        }
        Ok(Evolved { book, places, tags, plans, report })
    }

    /// States that belong together are the same in the same order.
    fn check_fixed(&self, declared: &Declared) -> Result<(), Vec<Problem>> {
        let stored: Vec<&str> = self.present().states.iter().map(|placed| placed.state.name.as_str()).collect();
        let wanted: Vec<&str> = declared.states.iter().map(|state| state.name.as_str()).collect();
        if !declared.fixed || stored == wanted {
            return Ok(());
        }
        let why = format!("the plugin's accumulators were of `{}` and are of `{}` now", stored.join("`, `"), wanted.join("`, `"));
        Err(vec![Problem { name: "*".into(), what: "state", why, next: "restore these aggregates, their names and their order".into() }])
    }
}

/// What is found out on the way.
struct Next {
    book: Book,
    report: Report,
    problems: Vec<Problem>,
}

impl Next {
    fn problem(&mut self, what: &'static str, name: &str, why: impl Into<String>, next: impl Into<String>) {
        let problem = Problem { name: name.into(), what, why: why.into(), next: next.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// By declared timer: its tag.
    fn timers(&mut self, declared: &[Timer], dropped: &dyn Fn(&str) -> bool) -> Vec<usize> {
        for tag in 0..self.book.timers.len() {
            let Some(stored) = self.book.timers[tag].clone() else { continue };
            let now = declared.iter().find(|timer| timer.name == stored.name);
            if now == Some(&stored) {
                continue;
            }
            if dropped(&stored.name) {
                self.report.dropped.push(format!("timer {}", stored.name));
                self.book.timers[tag] = None;
            } else if now.is_some() {
                self.problem("timer", &stored.name, "it follows another clock now", "give the new timer another name");
            } else {
                self.problem("timer", &stored.name, "the plugin has no such timer any more, and some may be pending", "bring it back");
            }
        }
        let mut tags = Vec::new();
        for timer in declared {
            let known = self.book.timers.iter().position(|stored| stored.as_ref() == Some(timer));
            tags.push(known.unwrap_or_else(|| {
                self.book.timers.push(Some(timer.clone()));
                self.book.timers.len() - 1
            }));
        }
        if self.book.timers.len() > MAX_PLACES {
            self.problem(
                "timer",
                "*",
                format!("there were more than {MAX_PLACES} timers in the life of this state"),
                "drop all of the state",
            );
        }
        tags
    }

    /// The declared states with their places.
    fn places(&mut self, stored: &Era, declared: &[State], dropped: &dyn Fn(&str) -> bool) -> Vec<Placed> {
        let names: BTreeSet<&str> = declared.iter().map(|state| state.name.as_str()).collect();
        for Placed { state, .. } in &stored.states {
            if dropped(&state.name) {
                self.report.dropped.push(state.name.clone());
            } else if !names.contains(state.name.as_str()) {
                self.problem("state", &state.name, "the plugin has no such state any more", "bring it back");
            }
        }
        let mut places = Vec::new();
        for state in declared {
            let kept = stored.states.iter().find(|placed| placed.state.name == state.name && !dropped(&state.name));
            let state = state.clone();
            places.push(match kept {
                // What the present era has is known to all tasks alike, and so they give the same places.
                Some(Placed { place, former, state: stored }) if state.kind == Kind::Value || !is_changed(stored, &state) => {
                    Placed { place: *place, former: former.clone(), state }
                }
                Some(Placed { place, former, .. }) => {
                    let former = former.iter().copied().chain([*place]).collect();
                    Placed { place: self.new_place(&state), former, state }
                }
                None => {
                    self.report.new.push(state.name.clone());
                    Placed { place: self.new_place(&state), former: Vec::new(), state }
                }
            });
        }
        if self.book.columns.len() > MAX_PLACES {
            self.problem(
                "state",
                "*",
                format!("there were more than {MAX_PLACES} states in the life of this one"),
                "drop all of the state",
            );
        }
        places
    }

    fn new_place(&mut self, state: &State) -> usize {
        self.book.columns.push(state.kind == Kind::Value);
        self.book.columns.len() - 1
    }

    /// What changes in cells of the first of some eras: the others are those that came after it. Of the present one it is reported.
    fn plan(&mut self, eras: &[Era], states: &[Placed]) -> Plan {
        let (mut plan, mut seen) = (Plan::new(), BTreeSet::new());
        for (later, era) in eras.iter().enumerate() {
            // A cell that was converted in part has items of later eras, in their sets.
            let placed = era.states.iter().filter(|placed| later == 0 || placed.state.kind != Kind::Value);
            for Placed { place, state: stored, .. } in placed {
                if !seen.insert(*place) {
                    continue;
                }
                // Eras in which a set has the same place have the same bytes in it; the last of them says what they are.
                let stored = if stored.kind == Kind::Value { stored } else { last_at(eras, *place).unwrap_or(stored) };
                let Some(Placed { place: to, state: wanted, .. }) = states.iter().find(|placed| placed.takes(*place)) else {
                    plan.push(Step { from: *place, to: *place, change: Change::Clear });
                    continue;
                };
                match change(stored, wanted) {
                    Ok(change) => {
                        if eras.len() == 1 {
                            self.report(&change, stored, wanted);
                        }
                        plan.push(Step { from: *place, to: *to, change });
                    }
                    Err((why, next)) => self.problem("state", &stored.name, why, next),
                }
            }
        }
        plan
    }

    fn report(&mut self, change: &Change, stored: &State, wanted: &State) {
        let name = &stored.name;
        match change {
            change if change.is_none() => self.report.kept.push(name.clone()),
            Change::Convert(_) => self.report.migrated.push(format!("{name} (by rule)")),
            Change::Migrate { .. } => {
                self.report.migrated.push(format!("{name} (by the plugin, version {} to {})", stored.version, wanted.version));
            }
            Change::Clear => {}
        }
    }
}

/// Whether values of a state become others; not where they cannot.
fn is_changed(stored: &State, wanted: &State) -> bool {
    change(stored, wanted).is_ok_and(|change| !change.is_none())
}

/// The state that was the last at a place.
fn last_at(eras: &[Era], place: usize) -> Option<&State> {
    eras.iter().rev().flat_map(|era| &era.states).find(|placed| placed.place == place).map(|placed| &placed.state)
}

/// What becomes of a state's values, or why nothing can and what to do.
fn change(stored: &State, wanted: &State) -> Result<Change, (String, String)> {
    if stored.kind != wanted.kind {
        let why = format!("it was a {} and is a {} now", stored.kind, wanted.kind);
        return Err((why, "give the new state another name".into()));
    }
    if let (Some(stored), Some(wanted)) = (stored.expires_by, wanted.expires_by)
        && stored != wanted
    {
        let why = format!("what is stored expires by {stored}, and is to expire by {wanted} now");
        return Err((why, "give it the clock that it had, or give the new state another name".into()));
    }
    let (from, to) = (stored.version, wanted.version);
    if let Some(migration) = wanted.migrates.iter().find(|migration| from != to && migration.version == from) {
        let before = taken(stored, migration).map_err(|why| {
            let next = "let the migration take the type that is stored, or one to which a rule leads";
            (format!("the migration from version {from} does not take what is stored: {why}"), next.to_string())
        })?;
        return Ok(Change::Migrate { state: stored.name.clone(), version: from, before });
    }
    if from > to {
        let why = format!("it was written as version {from}, and the plugin has version {to}, which does not say how to go back");
        return Err((why, format!("run the plugin that has version {from}, or add a migration from {from} to {to}")));
    }
    let add = match from == to {
        true => format!("restore the type, or raise the version to {} and add a migration from {from}", to + 1),
        false => format!("restore the type, or add a migration from version {from}"),
    };
    if !alike(&stored.key, &wanted.key) {
        return Err((format!("its keys were {} and are {} now", shown(&stored.key), shown(&wanted.key)), add));
    }
    let conversion = match (&stored.value, &wanted.value) {
        (Some(stored_type), Some(wanted_type)) if stored.plain && wanted.plain => {
            resolve(stored_type, wanted_type).map_err(|mismatch| (mismatch.to_string(), add))?
        }
        // Nobody but the plugin can read it.
        _ if stored.plain == wanted.plain && from == to && alike(&stored.value, &wanted.value) => Conversion::Same(Field::default()),
        _ => return Err(("only the plugin can read its values, and it says that they have changed".into(), add)),
    };
    Ok(Change::Convert(conversion))
}

/// How stored values become what a migration takes.
fn taken(stored: &State, migration: &Migration) -> Result<Conversion, String> {
    let (Some(value), Some(taken)) = (&stored.value, &migration.value) else { return Ok(Conversion::Same(Field::default())) };
    if migration.key.is_some() && !alike(&stored.key, &migration.key) {
        return Err(format!("keys are {} and not {}", shown(&stored.key), shown(&migration.key)));
    }
    resolve(value, taken).map_err(|mismatch| mismatch.to_string())
}

fn alike(a: &Option<Field>, b: &Option<Field>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_like(b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn shown(field: &Option<Field>) -> String {
    field.as_ref().map_or_else(|| "not told".into(), Field::to_string)
}

impl Placed {
    /// Whether what is at a place is this state's.
    fn takes(&self, place: usize) -> bool {
        self.place == place || self.former.contains(&place)
    }
}

impl Step {
    /// Nothing is to be done.
    pub fn is_none(&self) -> bool {
        self.from == self.to && self.change.is_none()
    }
}

impl Change {
    /// The bytes stay as they are.
    pub fn is_none(&self) -> bool {
        matches!(self, Change::Convert(conversion) if conversion.is_same())
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::Event => "event time",
            Clock::Processing => "processing time",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Value => "value",
            Kind::List => "list",
            Kind::Map => "map",
        })
    }
}

//! From a function to the contract's `describe`, `open` and `process`.
//!
//! The macro implements [`Transform`] with one method of substance, `visit`, which hands the author's function to a visitor. Everything
//! that the function's types say is inferred there: [`Plan`] asks what it reads and gives out, [`Run`] calls it for each row.

use crate::answer::{Answer, Outputs, Shape};
use crate::columns::{ColumnsOf, Emit};
use crate::config::{self, Config};
use crate::metrics::{self, Collected, Metric};
use crate::read::Flat;
use crate::row::ReadRow;
use crate::schema::{Want, resolve, roots};
use crate::values::{EventTime, Timestamp};
use crate::wire::{ColumnNeed, Failure, Field, Input, Needs, OpenRequest, Opened, Outcome, OutputSchema, Role, RowErrors, TransformSpec};

/// A transform; `#[transform]` makes a type of the function's name that is one.
pub trait Transform: 'static {
    /// Kebab-case.
    const NAME: &'static str;
    /// The function's documentation, its first sentence.
    const SUMMARY: &'static str;
    /// Whether the input's columns pass beside the new ones.
    const APPENDS: bool;
    const NEEDS_EVENT_TIMES: bool;
    type Config: Config + 'static;
    const METRICS: &'static [&'static Metric];
    fn visit<'a, V: Visit<'a, Self::Config>>(visitor: V) -> V::Done;
}

/// What is done with the author's function.
pub trait Visit<'a, C: 'a>: Sized {
    type Done;
    /// A function of a row.
    fn rows<I, A, F>(self, function: F) -> Self::Done
    where
        I: ReadRow<'a>,
        A: Answer,
        F: Fn(&'a C, I, EventTime) -> A;
    /// A function of a batch.
    fn columns<I, O, F>(self, function: F) -> Self::Done
    where
        I: ReadRow<'a>,
        O: Outputs,
        F: Fn(&'a C, &ColumnsOf<'a, I>, &mut Emit<O>);
}

/// Asks what a function reads and gives out, without calling it.
struct Plan;

impl<'a, C: 'a> Visit<'a, C> for Plan {
    type Done = (Vec<Want>, Vec<Shape>);
    fn rows<I, A, F>(self, _: F) -> Self::Done
    where
        I: ReadRow<'a>,
        A: Answer,
    {
        (I::wants(), A::Element::shapes())
    }
    fn columns<I, O, F>(self, _: F) -> Self::Done
    where
        I: ReadRow<'a>,
        O: Outputs,
    {
        (I::wants(), O::shapes())
    }
}

/// Calls a function for each row of a batch, or once.
struct Run<'a, C> {
    config: &'a C,
    flat: Flat<'a>,
    event_times: &'a [u8],
    metrics: &'static [&'static Metric],
}

impl<'a, C: 'a> Visit<'a, C> for Run<'a, C> {
    type Done = Outcome;

    fn rows<I, A, F>(self, function: F) -> Outcome
    where
        I: ReadRow<'a>,
        A: Answer,
        F: Fn(&'a C, I, EventTime) -> A,
    {
        let rows = self.flat.columns.rows;
        let readers = I::readers(self.flat, Flat::TOP);
        let mut ports = A::Element::ports(rows as usize);
        let mut errors = RowErrors::default();
        let mut metrics = Collected::new(self.metrics);
        for row in 0..rows {
            let given = match I::read(&readers, row as usize) {
                Ok(input) => function(self.config, input, self.event_time(row)).give(&mut ports, row),
                Err(null) => Err(null.to_string()),
            };
            match given {
                Ok(()) => metrics.settle(),
                Err(message) => {
                    metrics::discard();
                    errors.push(row, &message);
                }
            }
        }
        let mut outputs = vec![];
        A::Element::finish(ports, rows, &mut outputs);
        Outcome { outputs, errors, metrics: metrics.finish() }
    }

    fn columns<I, O, F>(self, function: F) -> Outcome
    where
        I: ReadRow<'a>,
        O: Outputs,
        F: Fn(&'a C, &ColumnsOf<'a, I>, &mut Emit<O>),
    {
        let rows = self.flat.columns.rows;
        let mut metrics = Collected::new(self.metrics);
        let mut emit = Emit::new(rows as usize);
        function(self.config, &ColumnsOf::new(self.flat, self.event_times), &mut emit);
        metrics.settle();
        let (outputs, errors) = emit.finish(rows);
        Outcome { outputs, errors, metrics: metrics.finish() }
    }
}

impl<C> Run<'_, C> {
    #[inline(always)]
    fn event_time(&self, row: u32) -> EventTime {
        event_time(self.event_times, row as usize)
    }
}

/// The event time of a row; 0 when they were not asked for, and then nobody sees it.
#[inline(always)]
pub(crate) fn event_time(event_times: &[u8], row: usize) -> EventTime {
    let bytes = event_times.get(row * 8..row * 8 + 8).and_then(|bytes| bytes.try_into().ok());
    EventTime(Timestamp(bytes.map_or(0, i64::from_le_bytes)))
}

/// An opened transform.
pub trait Instance {
    fn process(&self, input: &Input) -> Outcome;
}

struct Open<T: Transform> {
    config: T::Config,
    /// The schema of the columns that are read.
    fields: Vec<Field>,
}

impl<T: Transform> Instance for Open<T> {
    fn process(&self, input: &Input) -> Outcome {
        let flat = Flat { fields: &self.fields, columns: &input.columns };
        T::visit(Run { config: &self.config, flat, event_times: &input.event_times, metrics: T::METRICS })
    }
}

/// What is known of a transform before it is opened.
pub fn spec<T: Transform>() -> TransformSpec {
    let (wants, shapes) = T::visit(Plan);
    TransformSpec {
        name: T::NAME.to_owned(),
        summary: T::SUMMARY.to_owned(),
        role: Role::Transform,
        states: vec![],
        timers: vec![],
        config_schema: T::Config::schema().to_string(),
        reads: wants.into_iter().map(|want| ColumnNeed { name: want.name.to_owned(), formats: want.formats }).collect(),
        outputs: shapes.iter().map(|shape| shape.tag.to_owned()).collect(),
    }
}

/// Opens a transform for an input schema.
pub fn open<T: Transform>(request: &OpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure> {
    let (wants, shapes) = T::visit(Plan);
    let config = config::read(&request.config).map_err(|error| Failure::new(format!("{}: {error}", T::NAME)))?;
    let reads = resolve(&wants, &request.schema).map_err(|problem| Failure::new(format!("{}: {problem}", T::NAME)))?;
    let roots = roots(&request.schema);
    let fields = reads.iter().flat_map(|read| subtree(&request.schema, roots[*read as usize])).cloned().collect();
    let outputs = shapes.into_iter().map(|shape| output(shape, &request.schema, &roots, T::APPENDS, &[])).collect();
    let needs = Needs { event_times: T::NEEDS_EVENT_TIMES, ..Needs::default() };
    let opened = Opened { reads, needs, outputs, metrics: T::METRICS.to_vec() };
    Ok((opened, Box::new(Open::<T> { config, fields })))
}

pub(crate) fn subtree(schema: &[Field], root: usize) -> &[Field] {
    &schema[root..crate::schema::after(schema, root)]
}

/// Passed columns are those that the output does not add under the same name: all of them, or only those of the key.
pub(crate) fn output(shape: Shape, schema: &[Field], roots: &[usize], appends: bool, key: &[u32]) -> OutputSchema {
    let added: Vec<_> = crate::schema::roots(&shape.adds).into_iter().map(|root| shape.adds[root].name.as_str()).collect();
    let passes = appends || shape.adds.is_empty();
    let kept = |number: &u32| (passes || key.contains(number)) && !added.contains(&schema[roots[*number as usize]].name.as_str());
    let passes = (0..roots.len() as u32).filter(kept).collect();
    OutputSchema { tag: shape.tag.to_owned(), passes, adds: shape.adds }
}

/// Opens a transform with a request.
pub type OpenFn = fn(&OpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure>;

/// A transform of a component, by function pointers.
pub struct Registered {
    pub spec: fn() -> TransformSpec,
    pub open: Opener,
    pub name: &'static str,
}

/// How a transform is opened, by its role.
#[derive(Clone, Copy)]
pub enum Opener {
    Transform(OpenFn),
    Stateful(crate::stateful::OpenFn),
    Combine(crate::combine::OpenFn),
}

/// What `plugin!` can list; the macros implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transform",
    note = "`plugin!` lists functions with `#[transform]` and types whose `impl` has `#[stateful]` or `#[combine]`"
)]
pub trait Register {
    fn registered() -> Registered;
}

pub fn registered<T: Transform>() -> Registered {
    Registered { spec: spec::<T>, open: Opener::Transform(open::<T>), name: T::NAME }
}

/// All transforms of a component; `plugin!` implements it.
pub trait Plugin {
    const NAME: &'static str;
    const VERSION: &'static str;
    fn transforms() -> Vec<Registered>;

    /// How the transform of this name is opened.
    fn opener(transform: &str) -> Result<Opener, Failure> {
        let transforms = Self::transforms();
        match transforms.iter().find(|known| known.name == transform) {
            Some(known) => Ok(known.open),
            None => {
                let known: Vec<_> = transforms.iter().map(|transform| transform.name).collect();
                Err(Failure::new(format!("{} has no transform `{transform}`; it has {}", Self::NAME, known.join(", "))))
            }
        }
    }
}

/// A transform that is opened as what it is not.
#[cfg(target_arch = "wasm32")]
pub(crate) fn wrong_role(transform: &str) -> Failure {
    Failure::new(format!("`{transform}` was opened in another role than its own (a fault of the host)"))
}

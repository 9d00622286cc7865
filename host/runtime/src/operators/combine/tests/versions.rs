//! A sum of a plugin in several versions, beside one of our own.

use super::*;
use crate::bind::{BoundNode, OperatorPlan};
use crate::operators::evolving::Bounds;
use crate::operators::stateful;
use crate::swap::NewVersion;
use pelton_core::evolution::{Book, Evolved};
use pelton_plugin::Limits;

/// How often it may change.
pub(crate) const VERSIONS: usize = 3;

pub(crate) fn plan(version: usize, strategy: &WindowingStrategy) -> CombinePlan {
    let transform = ["total-one", "total-two", "total-three"][version];
    let input = schema();
    let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
    let binding = stateful::tests::PLUGIN.bind_combine(transform, &serde_json::json!({}), &DataType::Int64, &Limits::default());
    let plugin = AggregateFunction::Plugin { provider: 0, transform: transform.into(), config: serde_json::json!({}) };
    CombinePlan {
        group_by: vec![column("k")],
        group_types: vec![DataType::Int64],
        aggregates: vec![(AggregateFunction::Sum, Some(column("v"))), (plugin, Some(column("v")))],
        plugins: vec![None, Some(binding.expect("the plugin has it"))],
        schema: Arc::new(Schema::new(["k", "s", "t"].map(|name| Field::new(name, DataType::Int64, true)).to_vec())),
        late_schema: late_schema(&input),
        late_port: LATE,
        strategy: strategy.clone(),
        spread: false,
        levels: vec![],
        state_limit: usize::MAX,
    }
}

fn refusals() -> Refusals {
    Refusals { transform: "Combine".into(), plugin: None, port: None }
}

/// The operator with a version of the sum, and what becomes of the state of the one before; its sweep goes by single cells.
pub(crate) fn total(version: usize, strategy: &WindowingStrategy, book: Option<&Book>) -> Combine {
    let plan = plan(version, strategy);
    let evolved: Option<Evolved> = book.map(|book| book.evolve(&plan.declared(), &|_| false).expect("it goes on"));
    let mut made = Combine::new(plan, Arc::default(), refusals()).expect("the plan is sound").going_on(evolved.as_ref());
    made.core.evolving.bounds = Bounds { first: 1, cells: 1, items: 1, bytes: 1 };
    made
}

/// A version that lies ready, for so many tasks and edges.
pub(crate) fn ready(version: usize, strategy: &WindowingStrategy, guests: usize) -> NewVersion {
    let plan = plan(version, strategy);
    let bound = BoundNode {
        ports: vec![String::new()],
        schemas: vec![plan.schema.clone()],
        refusals: refusals(),
        window_fn: strategy.window_fn,
        plan: OperatorPlan::Combine(Box::new(plan)),
        sides: None,
    };
    NewVersion::open(bound, true, guests).expect("guests open")
}

/// The sums of ours and of the plugin, of each pane.
pub(crate) fn sums(out: Out) -> Vec<(i64, i64)> {
    let batches = out.messages.into_iter().filter_map(|(_, message)| match message {
        Message::Data(batch) => Some(batch.rows),
        _ => None,
    });
    let of = |rows: &RecordBatch, column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
    batches.flat_map(|rows| of(&rows, 1).into_iter().zip(of(&rows, 2))).collect()
}

/// Whatever the windows, cells that have rows of all versions sum up as ours beside them does: some are swept, some are brought when they are used or
/// merged with newer ones.
#[tokio::test]
async fn another_version_takes_over_between_rows() {
    let micros = Duration::from_micros;
    for window_fn in [
        WindowFn::Fixed { size: micros(100), offset: micros(0) },
        WindowFn::Sliding { size: micros(90), period: micros(30), offset: micros(0) },
        WindowFn::Sessions { gap: micros(12) },
    ] {
        let strategy = WindowingStrategy::new(window_fn, micros(0));
        let mut operator = total(0, &strategy, None);
        let (mut seen, mut number) = (Vec::new(), 0);
        for version in 0..VERSIONS {
            if version > 0 {
                operator.renew(&ready(version, &strategy, 1)).await.expect("it was prepared");
                operator.core.evolving.bounds = Bounds { first: 1, cells: 1, items: 1, bytes: 1 };
            }
            for round in 0..6 {
                let mut out = Out::new(Instant::MIN);
                let row = |place: i64| (round * 10 + place, place % 4, number + place);
                operator.data(0, batch(&(0..9).map(row).collect::<Vec<_>>()), &mut out).await.expect("rows are sound");
                number += 9;
                if round == 3 {
                    operator.settle().await.expect("a part of the sweep");
                }
                seen.extend(sums(out));
            }
        }
        let mut out = Out::new(Instant::MIN);
        operator.end(End::Drained, &mut out).await.expect("panes are sound");
        seen.extend(sums(out));
        assert!(!seen.is_empty() && seen.iter().all(|(own, plugin)| own == plugin), "{window_fn:?}: {seen:?}");
        assert!(seen.iter().map(|(own, _)| own).sum::<i64>() >= (0..number).sum(), "{window_fn:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_version_that_was_not_prepared_is_none() {
    let strategy = WindowingStrategy::new(WindowFn::Global, Duration::ZERO);
    let mut operator = total(1, &strategy, None);
    let ready = ready(2, &strategy, 1);
    operator.renew(&ready).await.expect("there is a guest for it");
    assert!(operator.renew(&ready).await.is_err(), "and no other");
}

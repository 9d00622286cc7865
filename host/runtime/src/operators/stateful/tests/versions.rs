//! Versions of a transform after one another, with checkpoints and deaths in the middle of the sweep; in memory, and with most cells on disk. What comes out is that of
//! a loop over the rows.

use super::*;
use crate::operators::evolving::Bounds;
use arrow::array::Array;
use pelton_core::evolution::Book;
use pelton_state::{Rows, Scratch};

const USERS: u8 = 60;

/// A life of one version.
#[derive(Clone, Debug)]
struct Life {
    version: usize,
    /// Of parts of the sweep, and how many there are before the seal apart from the first ones.
    bounds: Bounds,
    steps: usize,
    before: Vec<(u8, i64)>,
    after: Vec<(u8, i64)>,
}

#[derive(Default)]
struct Model {
    count: i64,
    sum: i64,
    even: i64,
    first: Option<i64>,
}

/// User, count, sum, sum of the list, even, first.
type Figures = (String, [i64; 5]);

fn expected(models: &mut BTreeMap<u8, Model>, rows: &[(u8, i64)]) -> Vec<Figures> {
    let figures = rows.iter().map(|(user, number)| {
        let model = models.entry(*user).or_default();
        model.count += 1;
        model.sum += number;
        model.even += i64::from(number % 2 == 0);
        let first = *model.first.get_or_insert(*number);
        (format!("u{user}"), [model.count, model.sum, model.sum, model.even, first])
    });
    figures.collect()
}

fn given(out: &Out, all: &mut Vec<Figures>) {
    for (_, message) in &out.messages {
        let Message::Data(batch) = message else { continue };
        let column = |name: &str| batch.rows.column_by_name(name).unwrap().clone();
        let users = column("user");
        let numbers = ["count", "sum", "recent", "even", "first"].map(column);
        for row in 0..users.len() {
            let number = |column: &arrow::array::ArrayRef| column.as_primitive::<Int64Type>().value(row);
            all.push((users.as_string::<i32>().value(row).to_owned(), numbers.each_ref().map(number)));
        }
    }
}

fn feed(operator: &mut Stateful, rows: &[(u8, i64)], all: &mut Vec<Figures>) {
    let rows: Vec<_> = rows.iter().map(|(user, number)| (*user, 0, *number)).collect();
    for rows in rows.chunks(7) {
        given(&run(operator, 0, &Step::Rows(rows.to_vec())), all);
        operator.make_room().unwrap();
    }
}

fn live(lives: &[Life], scratch: Option<&Scratch>) {
    let (mut models, mut got, mut want) = (BTreeMap::new(), Vec::new(), Vec::new());
    let (mut state, mut book): (Rows, Option<Arc<Book>>) = (Rows::default(), None);
    for life in lives {
        let transform = ["figures-one", "figures-two", "figures-three"][life.version];
        let declared = operator(transform, WindowFn::Global, 0, None).plan.binding.declared();
        let stored = book.map(|book| Book::read(&book.write()).unwrap().unwrap());
        let evolved = stored.map(|book| Arc::new(book.evolve(&declared, &|name| name == "seen").expect("it goes on")));
        let mut operator = going_on(transform, WindowFn::Global, 0, None, evolved.clone());
        if let Some(scratch) = scratch {
            operator.evict_to(scratch).unwrap();
        }
        let rows = state.sorted();
        let restored = operator.with_states(|states| states.keyed.cells_mut().restore(rows.iter()));
        restored.expect("what was written is read");
        operator.make_room().unwrap();
        operator.with_states(|states| states.keyed.cells_mut().record());
        operator.restore(&[]).unwrap();
        operator.evolving.bounds = life.bounds;
        given(&run(&mut operator, 0, &Step::Tick), &mut got);
        feed(&mut operator, &life.before, &mut got);
        for _ in 0..life.steps {
            if operator.is_settling() {
                block_on(operator.settle()).unwrap();
                operator.make_room().unwrap();
            }
        }
        // A checkpoint; what comes after it is lost with the life, but happens while it is written down.
        operator.with_states(|states| states.keyed.cells_mut().seal());
        book = operator.book();
        let eras = book.as_ref().unwrap().eras.len();
        assert!(operator.is_settling() == (eras > 1), "{eras} eras");
        let mut lost = Vec::new();
        feed(&mut operator, &life.after, &mut lost);
        if operator.is_settling() {
            block_on(operator.settle()).unwrap();
        }
        operator.with_states(|states| while !states.keyed.cells_mut().persist(5, &mut state) {});
        want.extend(expected(&mut models, &life.before));
    }
    got.sort();
    want.sort();
    assert_eq!(got, want);
}

/// One key whose list has a thousand items.
#[test]
fn a_cell_with_very_many_items_is_converted_in_portions() {
    let mut before = operator("figures-one", WindowFn::Global, 0, None);
    before.with_states(|states| states.keyed.cells_mut().record());
    let rows: Vec<(u8, i64)> = (0..1_000).map(|number| (1, number)).collect();
    let mut figures = Vec::new();
    feed(&mut before, &rows, &mut figures);
    let mut state = Rows::default();
    before.with_states(|states| {
        states.keyed.cells_mut().seal();
        while !states.keyed.cells_mut().persist(5, &mut state) {}
    });
    let book = Operator::book(&before).unwrap();
    let declared = operator("figures-two", WindowFn::Global, 0, None).plan.binding.declared();
    let evolved = Arc::new(book.evolve(&declared, &|_| false).expect("it goes on"));
    let mut after = going_on("figures-two", WindowFn::Global, 0, None, Some(evolved));
    after.with_states(|states| states.keyed.cells_mut().restore(state.sorted().iter())).expect("what was written is read");
    after.restore(&[]).unwrap();
    after.evolving.bounds = Bounds { first: 1, cells: 100, items: 64, bytes: usize::MAX };
    figures.clear();
    given(&run(&mut after, 0, &Step::Tick), &mut figures);
    let mut parts = 1;
    while after.is_settling() {
        block_on(after.settle()).unwrap();
        parts += 1;
    }
    assert!((16..18).contains(&parts), "1,003 values in portions of 64: {parts}");
    feed(&mut after, &[(1, 7)], &mut figures);
    assert_eq!(figures, [("u1".to_owned(), [1_001, 499_507, 499_507, 500, 0])]);
}

fn life() -> impl Strategy<Value = Life> {
    let rows = || proptest::collection::vec((0..USERS, 0i64..100), 0..90);
    let bounds = (1usize..3, 1usize..20, 1usize..12, 1usize..200);
    let bounds = bounds.prop_map(|(first, cells, items, bytes)| Bounds { first, cells, items, bytes });
    (bounds, 0usize..4, rows(), rows()).prop_map(|(bounds, steps, before, after)| Life { version: 0, bounds, steps, before, after })
}

/// Versions only rise: there is no way back from the third.
fn lives() -> impl Strategy<Value = Vec<Life>> {
    proptest::collection::vec((life(), 0usize..2), 2..6).prop_map(|lives| {
        let mut version = 0;
        let next = lives.into_iter().enumerate().map(|(number, (life, rise))| {
            version = if number == 0 { 0 } else { (version + rise).min(2) };
            Life { version, ..life }
        });
        next.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn deaths_in_the_sweep_lose_nothing(lives in lives()) {
        live(&lives, None);
    }

    #[test]
    fn nor_with_cells_on_disk(lives in lives()) {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(folder.path(), 8_000, 1).unwrap();
        live(&lives, Some(&scratch));
    }
}

//! Transforms that keep the contract: origins, tags, row errors, context, metrics, recycling.

use crate::*;
use pelton_core::batch::{PaneInfo, PaneTiming, RowWindows};
use pelton_core::{Instant, Window};

#[test]
fn a_filter_keeps_times_and_positions_of_its_origins() {
    let processed = process("filter", &batch([5, 4, 3, 2]));
    let (port, kept) = &processed.outputs[0];
    assert_eq!((*port, numbers(&processed, 0, "number")), (0, vec![4, 2]));
    assert_eq!(kept.times.to_vec(), [1_000_000, 3_000_000]);
    assert_eq!(kept.position(1).unwrap().1, 300);
    assert_eq!((processed.led_to_output, processed.retries, processed.traps), (2, 0, 0));
}

#[test]
fn a_filter_that_keeps_nothing_gives_no_batch() {
    let processed = process("filter", &batch([1, 3]));
    assert!(processed.outputs.is_empty() && processed.errors.is_empty());
    assert_eq!(processed.led_to_output, 0);
}

#[test]
fn a_map_adds_a_column_to_the_passed_ones() {
    let processed = process("map", &batch([1, 2]));
    assert_eq!(numbers(&processed, 0, "doubled"), [2, 4]);
    let names: Vec<_> = processed.outputs[0].1.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["text", "number", "doubled"]);
}

#[test]
fn a_flat_map_repeats_its_origins() {
    let processed = process("flat-map", &batch([7, 8]));
    assert_eq!(numbers(&processed, 0, "number"), [7, 7, 8, 8]);
    assert_eq!(processed.led_to_output, 2);
}

#[test]
fn tagged_outputs_have_their_own_columns() {
    let input = batch([1, 2, 3]);
    let binding = bind("tagged", &input, &Limits::default()).unwrap();
    assert_eq!(binding.outputs.iter().map(|output| output.tag.as_str()).collect::<Vec<_>>(), ["", "odd"]);
    assert_eq!(binding.reads_names(), ["number"]);
    let processed = block_on(binding.open().unwrap().process(&input)).unwrap();
    assert_eq!(numbers(&processed, 0, "number"), [2]);
    assert_eq!((numbers(&processed, 1, "number"), numbers(&processed, 1, "half")), (vec![1, 3], vec![0, 1]));
    assert_eq!(processed.led_to_output, 3);
}

#[test]
fn row_errors_name_their_rows() {
    let processed = process("row-error", &batch([1, 2, 3]));
    let told: Vec<_> = processed.errors.iter().map(|error| (error.row, error.message.as_str())).collect();
    assert_eq!(told, [(0, "1 is odd"), (2, "3 is odd")]);
    assert_eq!((numbers(&processed, 0, "number"), processed.led_to_output), (vec![2], 1));
}

#[test]
fn context_crosses_when_asked_for() {
    let mut input = batch([1, 2, 3]);
    let error = process_with("context", &input, &Limits::default()).unwrap_err();
    assert!(matches!(error, PluginError::Contract { .. }), "{error}");
    let window = |start, end| Window { start: Instant::from_micros(start).unwrap(), end: Instant::from_micros(end).unwrap() };
    input.windows = Some(RowWindows {
        index: vec![1, 0, 1].into(),
        table: [window(-10, 0), window(0, 10)].into(),
        pane: PaneInfo { timing: PaneTiming::Late, is_first: false, is_last: false, index: 4, nonspeculative_index: 2 },
    });
    let processed = process("context", &input);
    assert_eq!(numbers(&processed, 0, "time"), [0, 1_000_000, 2_000_000]);
    assert_eq!((numbers(&processed, 0, "window_start"), numbers(&processed, 0, "window_end")), (vec![0, -10, 0], vec![10, 0, 10]));
    assert_eq!(numbers(&processed, 0, "pane"), [4, 4, 4]);
}

#[test]
fn event_times_can_move_on_but_not_back() {
    assert_eq!(process("later", &batch([0, 0])).outputs[0].1.times.to_vec(), [1_000_000, 2_000_000]);
    let processed = process("earlier", &batch([2, 3, 4]));
    assert_eq!(processed.errors.len(), 1);
    assert_eq!(processed.errors[0].row, 1);
    assert!(processed.errors[0].message.contains("earlier than 1970-01-01T00:00:01Z"), "{}", processed.errors[0].message);
    assert_eq!((numbers(&processed, 0, "number"), processed.led_to_output), (vec![2, 4], 2));
    assert_eq!(processed.outputs[0].1.times.to_vec(), [0, 2_000_000]);
}

#[test]
fn metrics_are_handed_on() {
    let metrics = process("metrics", &batch([1, 2])).metrics;
    assert_eq!(metrics.iter().map(|update| (update.metric, update.count, update.sum)).collect::<Vec<_>>(), [(0, 2, 2.0), (1, 2, 16.0)]);
}

#[test]
fn a_guest_that_talks_too_much_is_cut_short() {
    assert_eq!(numbers(&process("chatty", &batch([1])), 0, "number"), [1]);
}

#[test]
fn an_instance_that_grows_is_replaced() {
    let input = batch([1, 2]);
    let limits = Limits { recycle_bytes: 8 << 20, memory_bytes: 16 << 20, ..Limits::default() };
    let mut instance = bind("grows", &input, &limits).unwrap().open().unwrap();
    for _ in 0..100 {
        let processed = block_on(instance.process(&input)).unwrap();
        assert_eq!((numbers(&processed, 0, "number"), processed.traps), (vec![1, 2], 0));
    }
    assert!((10..=20).contains(&instance.recycled()), "{}", instance.recycled());
    block_on(instance.close());
}

#[test]
fn a_call_yields_to_its_neighbours() {
    let input = batch([1]);
    let limits = Limits { call_deadline: std::time::Duration::from_millis(200), batch_calls: 1, ..Limits::default() };
    let binding = bind("loop", &input, &limits).unwrap();
    let mut instance = binding.open().unwrap();
    let turns = std::cell::Cell::new(0);
    block_on(async {
        let neighbour = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; answer = instance.process(&input) => assert!(answer.is_err()), () = neighbour => {} }
    });
    assert!(turns.get() >= 10, "{} turns", turns.get());
}

//! Transforms that keep the contract.

use crate::*;
use pelton::plugin::batch::MetricUpdate;

pub const NAMES: &[&str] = &[
    "identity", "empty", "filter", "map", "flat-map", "tagged", "row-error", "context", "later", "earlier", "metrics", "chatty", "grows",
    "fails", "large-result", "words",
];

pub fn open(request: &OpenRequest, number: u32) -> Option<Result<Opened, Failure>> {
    let all: Vec<u32> = (0..roots(&request.schema).len() as u32).collect();
    let mut opened = passing(request, number);
    match request.transform.as_str() {
        "identity" => {
            opened.reads = all;
            opened.outputs = vec![main_output(vec![], request.schema.clone())];
        }
        "map" => opened.outputs = vec![main_output(all, vec![leaf("doubled", "l", false)])],
        "tagged" => {
            opened.outputs.push(OutputSchema { tag: "odd".into(), passes: vec![number], adds: vec![leaf("half", "l", false)] });
        }
        "context" => {
            opened.needs = Needs::EVENT_TIMES | Needs::WINDOWS | Needs::PANES;
            let adds = vec![leaf("time", "l", false), leaf("window_start", "l", false), leaf("window_end", "l", false), leaf("pane", "l", false)];
            opened.outputs = vec![main_output(all, adds)];
        }
        "later" | "earlier" => opened.needs = Needs::EVENT_TIMES,
        "metrics" => opened.metrics = vec![counter("seen"), MetricSpec { name: "size".into(), kind: MetricKind::Distribution, unit: "By".into() }],
        "large-result" => opened.outputs = vec![main_output(all, vec![leaf("large", "z", false)])],
        "words" => opened.outputs = vec![main_output(vec![], vec![leaf("word", "u", false)])],
        name if NAMES.contains(&name) => {}
        _ => return None,
    }
    Some(Ok(opened))
}

pub fn process(transform: &str, rows: Input) -> Result<Outcome, Failure> {
    let n = rows.columns.rows;
    if transform == "identity" {
        return Ok(outcome(vec![output(0, rows.columns, None)]));
    }
    let number = |row: u32| i64_at(&rows.columns.buffers[1], row as usize);
    let kept = |odd: i64| (0..n).filter(|row| number(*row) & 1 == odd).collect::<Vec<_>>();
    let of_origin = |port, origin: Vec<u32>| output(port, no_columns(origin.len() as u32), Some(origin));
    let whole = || output(0, no_columns(n), None);
    let times = |by: i64| {
        let context = rows.context.as_ref().expect("event times are needed");
        let moved = context.event_times.chunks_exact(8).map(|time| i64::from_le_bytes(time.try_into().unwrap()) + by);
        Some(i64s(moved))
    };
    Ok(match transform {
        "filter" => outcome(vec![of_origin(0, kept(0))]),
        "map" => outcome(vec![output(0, one_column(n, vec![vec![], i64s((0..n).map(|row| number(row).wrapping_mul(2)))]), None)]),
        "flat-map" => outcome(vec![of_origin(0, (0..2 * n).map(|row| row / 2).collect())]),
        "tagged" => {
            let odd = kept(1);
            let halves = i64s(odd.iter().map(|row| number(*row) / 2));
            outcome(vec![of_origin(0, kept(0)), output(1, one_column(odd.len() as u32, vec![vec![], halves]), Some(odd))])
        }
        "row-error" => {
            let texts: Vec<_> = kept(1).into_iter().map(|row| (row, format!("{} is odd", number(row)))).collect();
            let errors: Vec<_> = texts.iter().map(|(row, text)| (*row, text.as_str())).collect();
            Outcome { errors: row_errors(&errors), ..outcome(vec![of_origin(0, kept(0))]) }
        }
        "context" => {
            let context = rows.context.as_ref().expect("the context is needed");
            let window = |row: usize| u32::from_le_bytes(context.windows[4 * row..4 * row + 4].try_into().unwrap()) as usize;
            let pane = |row: usize| u32::from_le_bytes(context.panes[4 * row..4 * row + 4].try_into().unwrap()) as usize;
            let rows = 0..n as usize;
            let starts = i64s(rows.clone().map(|row| i64_at(&context.window_table, 2 * window(row))));
            let ends = i64s(rows.clone().map(|row| i64_at(&context.window_table, 2 * window(row) + 1)));
            let panes = i64s(rows.map(|row| i64_at(&context.pane_table, 3 * pane(row))));
            let nodes = u32s([n, 0, n, 0, n, 0, n, 0]);
            let buffers = vec![vec![], context.event_times.clone(), vec![], starts, vec![], ends, vec![], panes];
            outcome(vec![output(0, Columns { rows: n, nodes, buffers }, None)])
        }
        "later" => outcome(vec![Output { event_times: times(1_000_000), ..whole() }]),
        // Rows with an odd number are given an event time before their own.
        "earlier" => {
            let context = rows.context.as_ref().expect("event times are needed");
            let moved = i64s((0..n).map(|row| i64_at(&context.event_times, row as usize) - (number(row) & 1)));
            outcome(vec![Output { event_times: Some(moved), ..whole() }])
        }
        "metrics" => {
            let seen = MetricUpdate { metric: 0, count: u64::from(n), sum: f64::from(n), min: 1.0, max: 1.0 };
            let size = MetricUpdate { metric: 1, count: u64::from(n), sum: 8.0 * f64::from(n), min: 8.0, max: 8.0 };
            Outcome { metrics: vec![seen, size], ..outcome(vec![whole()]) }
        }
        "chatty" => {
            (0..1_000).for_each(|line| log::write(log::Level::Info, &format!("line {line}: {}", "x".repeat(20_000))));
            outcome(vec![whole()])
        }
        "grows" => {
            std::mem::forget(vec![1u8; 1 << 20]);
            outcome(vec![whole()])
        }
        "fails" if (0..n).any(|row| number(row) < 0) => {
            return Err(Failure { message: "a number is negative".into(), detail: "at hostile, line 1".into() });
        }
        // A megabyte a row.
        "large-result" => {
            let offsets = u32s((0..=n).map(|row| row << 20));
            outcome(vec![output(0, one_column(n, vec![vec![], offsets, vec![7; (n as usize) << 20]]), None)])
        }
        "words" => {
            let words: Vec<_> = (0..n).map(|row| number(row).to_string()).collect();
            let mut end = 0;
            let offsets = u32s([0].into_iter().chain(words.iter().map(|word| {
                end += word.len() as u32;
                end
            })));
            outcome(vec![output(0, one_column(n, vec![vec![], offsets, words.concat().into_bytes()]), None)])
        }
        _ => outcome(vec![whole()]),
    })
}

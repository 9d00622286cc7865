//! One breach of the contract a transform. Names say what is wrong.

use crate::*;
use pelton::plugin::batch::MetricUpdate;

pub const NAMES: &[&str] = &[
    "open-fails", "open-panics", "open-loops", "open-reads-beyond", "open-reads-twice", "open-passes-beyond", "open-no-output", "open-same-name", "open-same-tag",
    "open-large-list", "open-dictionary", "open-bad-format", "open-cut", "open-deep", "open-many-fields", "open-nullable-key",
    "few-rows", "no-output-node", "more-nodes", "node-length", "huge-node", "no-buffers", "few-buffers", "many-buffers", "short-values", "long-values", "short-validity",
    "null-count", "hidden-nulls", "offsets-short", "offsets-empty", "offsets-down", "offsets-negative", "offsets-beyond", "offsets-not-zero", "data-unused",
    "not-utf8", "cut-character", "list-child-short", "decimal-too-wide",
    "origin-beyond", "origin-short", "origin-uneven", "origin-timer", "port-beyond", "rows-without-origin", "times-short", "times-beyond",
    "errors-twice", "errors-down", "errors-beyond", "errors-offsets", "errors-not-utf8", "errors-uneven", "error-and-output", "error-and-whole",
    "metric-beyond",
];

pub fn open(request: &OpenRequest, number: u32) -> Option<Result<Opened, Failure>> {
    let mut opened = passing(request, number);
    let columns = opened.outputs[0].passes.len() as u32;
    let adds = |field: Field| vec![main_output(vec![], vec![field])];
    let parent = |name: &str, format: &str, children| Field { children, ..leaf(name, format, false) };
    match request.transform.as_str() {
        "open-fails" => return Some(Err(Failure { message: "`limit` is missing".into(), detail: "from the test".into() })),
        "open-panics" => panic!("open has no brakes"),
        "open-loops" => loop {
            std::hint::black_box(());
        },
        "open-reads-beyond" => opened.reads = vec![columns],
        "open-reads-twice" => opened.reads = vec![number, number],
        "open-passes-beyond" => opened.outputs[0].passes = vec![u32::MAX],
        "open-no-output" => opened.outputs.clear(),
        "open-same-name" => opened.outputs = vec![main_output(vec![number], vec![leaf("number", "l", false)])],
        "open-same-tag" => opened.outputs.push(main_output(vec![number], vec![])),
        "open-large-list" => opened.outputs = vec![main_output(vec![], vec![parent("a", "+L", 1), leaf("item", "l", false)])],
        "open-dictionary" => opened.outputs = adds(leaf("a", "vu", false)),
        "open-bad-format" => opened.outputs = adds(leaf("a", "d:99,3", false)),
        "open-cut" => opened.outputs = adds(parent("a", "+s", 2)),
        "open-deep" => opened.outputs = vec![main_output(vec![], (0..200_000).map(|_| parent("a", "+s", 1)).collect())],
        "open-many-fields" => opened.outputs = vec![main_output(vec![], (0..20_000).map(|i| leaf(&i.to_string(), "l", false)).collect())],
        "open-nullable-key" => {
            let key = leaf("key", "u", true);
            opened.outputs = vec![main_output(vec![], vec![parent("m", "+m", 1), parent("entries", "+s", 2), key, leaf("value", "l", true)])];
        }
        "offsets-short" | "offsets-empty" | "offsets-down" | "offsets-negative" | "offsets-beyond" | "offsets-not-zero" | "data-unused" | "not-utf8" | "cut-character" => {
            opened.outputs = adds(leaf("text", "u", false));
        }
        "list-child-short" => opened.outputs = vec![main_output(vec![], vec![parent("list", "+l", 1), leaf("item", "l", true)])],
        "decimal-too-wide" => opened.outputs = adds(leaf("decimal", "d:3,0", false)),
        "huge-node" => opened.outputs = vec![main_output(vec![], vec![parent("list", "+l", 1), leaf("item", "n", true)])],
        "no-output-node" | "more-nodes" | "node-length" | "no-buffers" | "few-buffers" | "many-buffers" | "short-values" | "long-values" | "short-validity" | "null-count"
        | "hidden-nulls" => opened.outputs = adds(leaf("made", "l", !request.transform.starts_with("hidden"))),
        "metric-beyond" => opened.metrics = vec![counter("one")],
        _ => {}
    }
    Some(Ok(opened))
}

pub fn process(transform: &str, rows: Input) -> Outcome {
    let n = rows.columns.rows;
    let numbers = rows.columns.buffers[1].clone();
    let whole = || output(0, no_columns(n), None);
    let added = |columns: Columns| outcome(vec![output(0, columns, None)]);
    let text = |offsets: Vec<u32>, data: &[u8]| added(one_column(n, vec![vec![], u32s(offsets), data.to_vec()]));
    let of_origin = |origin: Vec<u32>| outcome(vec![output(0, no_columns(origin.len() as u32), Some(origin))]);
    let errors = |errors: RowErrors| Outcome { errors, ..outcome(vec![]) };
    let flat = || vec![0; n as usize];
    let padded = |first: &[u32]| first.iter().copied().chain(std::iter::repeat(*first.last().unwrap())).take(n as usize + 1).collect::<Vec<_>>();
    match transform {
        "few-rows" => outcome(vec![output(0, no_columns(n - 1), None)]),
        "no-output-node" => added(Columns { nodes: vec![], ..one_column(n, vec![vec![], numbers]) }),
        "more-nodes" => added(Columns { nodes: u32s([n, 0, n, 0]), ..one_column(n, vec![vec![], numbers]) }),
        "node-length" => added(Columns { nodes: u32s([n - 1, 0]), ..one_column(n, vec![vec![], numbers]) }),
        "huge-node" => added(Columns {
            rows: n,
            nodes: u32s([n, 0, i32::MAX as u32, i32::MAX as u32]),
            buffers: vec![vec![], u32s((0..=n).map(|row| if row == n { i32::MAX as u32 } else { 0 }))],
        }),
        "no-buffers" => added(one_column(n, vec![])),
        "few-buffers" => added(one_column(n, vec![vec![]])),
        "many-buffers" => added(one_column(n, vec![vec![], numbers, vec![]])),
        "short-values" => added(one_column(n, vec![vec![], numbers[1..].to_vec()])),
        "long-values" => added(one_column(n, vec![vec![], [numbers, vec![0; 8]].concat()])),
        "short-validity" => added(Columns { nodes: u32s([n, 1]), ..one_column(n, vec![vec![0; (n as usize).div_ceil(8) - 1], numbers]) }),
        "null-count" => added(Columns { nodes: u32s([n, 1]), ..one_column(n, vec![vec![255; (n as usize).div_ceil(8)], numbers]) }),
        "hidden-nulls" => added(Columns { nodes: u32s([n, n]), ..one_column(n, vec![vec![0; (n as usize).div_ceil(8)], numbers]) }),
        "offsets-short" => text(flat(), b""),
        "offsets-empty" => text(vec![], b""),
        "offsets-down" => text(padded(&[0, 3, 1]), b"a"),
        "offsets-negative" => text(padded(&[0, u32::MAX, 0]), b""),
        "offsets-beyond" => text(padded(&[0, 100]), b"short"),
        "offsets-not-zero" => text(padded(&[1, 2]), b"ab"),
        "data-unused" => text(padded(&[0, 1]), b"ab"),
        "not-utf8" => text(padded(&[0, 2]), &[0xff, 0xfe]),
        "cut-character" => text(padded(&[0, 1, 2]), "é".as_bytes()),
        "list-child-short" => added(Columns { rows: n, nodes: u32s([n, 0, 1, 0]), buffers: vec![vec![], u32s(padded(&[0, 2])), vec![], vec![0; 8]] }),
        "decimal-too-wide" => added(one_column(n, vec![vec![], (0..n).flat_map(|_| 1_000i128.to_le_bytes()).collect()])),
        "origin-beyond" => of_origin(vec![0, n]),
        "origin-short" => outcome(vec![output(0, no_columns(2), Some(vec![0]))]),
        "origin-uneven" => outcome(vec![Output { origin: Some(vec![0; 5]), ..output(0, no_columns(1), None) }]),
        "origin-timer" => of_origin(vec![1 << 31]),
        "port-beyond" => outcome(vec![output(7, no_columns(n), None)]),
        "rows-without-origin" => outcome(vec![output(0, no_columns(u32::MAX), None)]),
        "times-short" => outcome(vec![Output { event_times: Some(vec![0; 8 * n as usize - 1]), ..whole() }]),
        "times-beyond" => outcome(vec![Output { event_times: Some(i64s((0..n).map(|_| i64::MAX))), ..whole() }]),
        "errors-twice" => errors(row_errors(&[(0, "a"), (0, "b")])),
        "errors-down" => errors(row_errors(&[(1, "a"), (0, "b")])),
        "errors-beyond" => errors(row_errors(&[(n, "a")])),
        "errors-offsets" => errors(RowErrors { offsets: u32s([0, 100]), ..row_errors(&[(0, "a")]) }),
        "errors-not-utf8" => errors(RowErrors { messages: vec![0xff], ..row_errors(&[(0, "a")]) }),
        "errors-uneven" => errors(RowErrors { rows: vec![0; 3], ..row_errors(&[(0, "a")]) }),
        "error-and-output" => Outcome { errors: row_errors(&[(1, "a")]), ..of_origin(vec![0, 1]) },
        "error-and-whole" => Outcome { errors: row_errors(&[(1, "a")]), ..outcome(vec![whole()]) },
        "metric-beyond" => {
            let update = MetricUpdate { metric: 1, count: 1, sum: 1.0, min: 1.0, max: 1.0 };
            Outcome { metrics: vec![update], ..outcome(vec![whole()]) }
        }
        _ => outcome(vec![whole()]),
    }
}

//! Whatever is done to a file, loading it gives a graph or findings, and findings that can be shown.

use pelton_pipeline::render;
use proptest::prelude::*;

use crate::load_with;

const GOOD: &str = "providers:
  - type: wasm
    config: {plugin: parse.wasm, limits: {memory: 64MiB}}
    transforms: {Parse: parse}
options:
  pelton: {name: x, memory: 1GiB, watermark: {delay: 1s, sources: {Create: {delay: 2s}}}}
pipeline:
  windowing: &w {type: fixed, size: {{ size | default('60s') }}}
  transforms:
    - {type: Create, config: {elements: [{a: 1, b: \"x\"}, {a: 2.5}]}}
    - type: chain
      name: Chain
      input: Create
      transforms:
        - {type: Parse, config: {limit: 3, error_handling: {output: bad}}}
        - {type: MapToFields, config: {language: sql, fields: {a: a + 1, b:
            lower(b)}}}
      extra_transforms:
        - {type: WriteToJson, input: Parse.bad, config: {path: bad}}
    - {type: Combine, input: [Chain, Create], windowing: *w, config: {group_by: a, combine: {n: count}}}
{%- if true %}
    - {type: WriteToJson, input: Combine, config: {path: out, roll: {size: 1MiB}}}
{%- endif %}
    - {type: LogForTesting, input: Combine.late}
";

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    "-",
    "\n",
    "  ",
    "\t",
    "&a ",
    "*a",
    "*w",
    "<<: ",
    "|",
    ">",
    "'",
    "\"",
    "!!int ",
    "? ",
    "---\n",
    "...",
    "#",
    "%",
    "{{",
    "}}",
    "{% for i in range(9) %}",
    "{% endfor %}",
    "é",
    "\u{0}",
    "\u{feff}",
    "null",
    "Chain",
    "Create",
    ".nan",
    "type: chain",
    "input: Chain",
    "🦀",
    "\r",
];

#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize, usize),
    Insert(usize, usize),
    Swap(usize, usize),
    Cut(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = 0..GOOD.len();
    prop_oneof![
        (at.clone(), 1..40usize).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (0..30usize, 0..30usize).prop_map(|(a, b)| Mutation::Swap(a, b)),
        at.prop_map(Mutation::Cut),
    ]
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    let characters: Vec<char> = text.chars().collect();
    let take = |from: usize, to: usize| characters[from.min(characters.len())..to.min(characters.len())].iter().collect::<String>();
    match *mutation {
        Mutation::Delete(at, length) => take(0, at) + &take(at + length, usize::MAX),
        Mutation::Insert(at, piece) => take(0, at) + PIECES[piece] + &take(at, usize::MAX),
        Mutation::Swap(a, b) => {
            let mut lines: Vec<&str> = text.lines().collect();
            if a < lines.len() && b < lines.len() {
                lines.swap(a, b);
            }
            lines.join("\n")
        }
        Mutation::Cut(at) => take(0, at),
    }
}

#[test]
fn the_file_is_good_to_begin_with() {
    load_with(GOOD, &[]).unwrap_or_else(|findings| panic!("{}", render(&findings)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_file_never_panics(mutations in proptest::collection::vec(mutation(), 1..6)) {
        let text = mutations.iter().fold(GOOD.to_string(), |text, mutation| mutate(&text, mutation));
        match load_with(&text, &[]) {
            Ok(graph) => {
                graph.drawing().to_svg();
                graph.drawing().to_text();
            }
            Err(findings) => {
                prop_assert!(!findings.is_empty());
                render(&findings);
            }
        }
    }

    #[test]
    fn any_text_at_all_never_panics(text in "[a-z:{}\\[\\]\\-\n \t&*'\"|>%#!]{0,200}") {
        if let Err(findings) = load_with(&text, &[]) {
            render(&findings);
        }
    }
}

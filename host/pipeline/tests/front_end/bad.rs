//! Bad files: what is said, and where.
//!
//! Each case is a file in which `⟦` stands in front of the character that the finding must point at (it is taken out before
//! loading), and a fragment of the message and its help. A case has as many marks as findings.

use pelton_pipeline::{Diagnostic, render};

use crate::load_with;

fn check(marked: &str, fragments: &[&str]) {
    let mut text = String::new();
    let mut places = Vec::new();
    let (mut line, mut column) = (1, 1);
    for c in marked.chars() {
        match c {
            '⟦' => {
                places.push((line, column));
                continue;
            }
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
        text.push(c);
    }
    let findings = load_with(&text, &[]).err().unwrap_or_else(|| panic!("nothing found in\n{text}"));
    let shown = render(&findings);
    let found: Vec<(usize, usize)> = findings.iter().map(|finding| (finding.line, finding.column)).collect();
    assert_eq!(found, places, "in\n{text}\n{shown}");
    assert_eq!(fragments.len(), findings.len(), "in\n{text}\n{shown}");
    for (finding, fragment) in findings.iter().zip(fragments) {
        let said = format!("{}; {}", finding.message, finding.help.as_deref().unwrap_or_default());
        assert!(said.contains(fragment), "`{fragment}` is not in `{said}`, in\n{text}");
    }
}

/// One transform between a source and a sink; the source is in line 3.
fn between(transform: &str) -> String {
    format!(
        "pipeline:\n  type: chain\n  source: {{type: Create, config: {{elements: [1]}}}}\n  transforms:\n    - {transform}\n  sink: {{type: WriteToJson, config: {{path: b}}}}\n"
    )
}

/// Transforms that connect by name, each in a line of its own from line 3.
fn composite(transforms: &[&str]) -> String {
    let lines: Vec<String> = transforms.iter().map(|transform| format!("    - {transform}\n")).collect();
    format!("pipeline:\n  transforms:\n{}", lines.concat())
}

const CREATE: &str = "{type: Create, config: {elements: [1]}}";

#[test]
fn the_text_is_no_yaml() {
    check("⟦", &["the file is empty"]);
    check("⟦# only a comment\n", &["the file is empty"]);
    check("⟦- a\n- b\n", &["a pipeline file is a mapping, not a list"]);
    check("⟦hello\n", &["a pipeline file is a mapping, not a string"]);
    check("pipeline:\n⟦\ttransforms: []\n", &["a tab cannot indent YAML; use blanks"]);
    check("pipeline: {transforms: []⟦\n", &["not YAML"]);
    check("pipeline: {transforms: [⟦*nothing]}\n", &["not YAML"]);
    check("pipeline: {}\n⟦---\npipeline: {}\n", &["a second document"]);
}

#[test]
fn scalars_that_cannot_be_read() {
    check(&between("{type: Filter, config: {keep: ⟦!python x}}"), &["unknown tag"]);
    check(&between("{type: Filter, config: {keep: ⟦.nan}}"), &["outside the range of numbers"]);
    check(&composite(&["{type: Create, config: {elements: [⟦99999999999999999999]}}"]), &["outside the range of numbers"]);
    check(
        &composite(&["{type: Create, config: {elements: [1], ⟦elements: [2]}}"]),
        &["`elements` is given twice; it is given first in line 3"],
    );
    check(&composite(&["{type: Create, config: {elements: [&a [⟦*a]]}}"]), &["an alias inside the value"]);
    check(&composite(&["{type: Create, config: {elements: [{<<: ⟦3}]}}"]), &["`<<` takes a mapping"]);
    check(&composite(&["{type: Create, config: {elements: [{? ⟦[1, 2] : 3}]}}"]), &["a key must be a string, not a list"]);
}

#[test]
fn keys_at_the_top() {
    check("⟦options: {}\n", &["needs `pipeline`"]);
    check("⟦pipeline:\n", &["`pipeline` of a pipeline file has no value"]);
    check("pipeline: ⟦3\n", &["`pipeline` must be a mapping, not a number"]);
    check(&format!("{}⟦optoins: {{}}\n", composite(&[CREATE])), &["unknown key `optoins` of a pipeline file; did you mean `options`?"]);
    check(&format!("{}tests: ⟦3\n", composite(&[CREATE])), &["`tests` must be a list"]);
    check("pipeline:\n  transforms: ⟦{}\n", &["`transforms` must be a list, not a mapping"]);
    check("pipeline:\n  ⟦transforms: []\n", &["there are no transforms here"]);
    check("⟦pipeline:\n  type: chain\n", &["there are no transforms here"]);
    check(
        &composite(&[CREATE]).replace("  transforms", "  type: ⟦chian\n  transforms"),
        &["the type of a pipeline is `composite` or `chain`"],
    );
    check(&composite(&[CREATE]).replace("  transforms", "  ⟦extra: 1\n  transforms"), &["unknown key `extra` of `pipeline`"]);
}

#[test]
fn keys_of_transforms() {
    check(&composite(&[CREATE, "⟦7"]), &["a transform must be a mapping, not a number"]);
    check(&composite(&[CREATE, "⟦{name: x}"]), &["a transform needs `type`"]);
    check(&composite(&[CREATE, "{type: ⟦[1], input: Create}"]), &["`type` must be a string, not a list"]);
    check(&composite(&["{type: Create, name: ⟦3, config: {elements: [1]}}"]), &["`name` must be a string, not a number"]);
    check(&composite(&["{type: Create, name: ⟦a/b, config: {elements: [1]}}"]), &["`a/b` is no name"]);
    check(
        &composite(&["{type: Create, ⟦confg: {}, config: {elements: [1]}}"]),
        &["unknown key `confg` of a transform; did you mean `config`?"],
    );
    check(
        &composite(&["{type: chain, ⟦output_schema: {}, transforms: [{type: Create, config: {elements: [1]}}]}"]),
        &["no `output_schema`"],
    );
    check(&composite(&["{type: Create, output: ⟦x, config: {elements: [1]}}"]), &["only a composite says what its `output` is"]);
    check(&between("{type: Flatten, ⟦input: Create}"), &["`input` has no place in a chain"]);
    check(
        &composite(&["{type: chain, config: ⟦{a: 1}, transforms: [{type: Create, config: {elements: [1]}}]}"]),
        &["a chain has no `config`"],
    );
}

#[test]
fn types_and_names_that_do_not_exist() {
    check(&between("{type: ⟦Fliter, config: {keep: x}}"), &["unknown transform type `Fliter`; did you mean `Filter`?"]);
    check(&between("{type: ⟦Frobnicate}"), &["unknown transform type `Frobnicate`; transforms of plugins"]);
    check(&between("{type: ⟦RunInference, config: {fields: x}}"), &["`RunInference` is a transform of Beam that is not available yet"]);
    check(&composite(&[CREATE, "{type: Flatten, input: ⟦Craete}"]), &["there is no transform `Craete` here; did you mean `Create`?"]);
    check(&composite(&[CREATE, "{type: Flatten, input: ⟦Create.bad}"]), &["`Create` has no output `bad`"]);
    check(&composite(&[CREATE, "{type: Flatten, input: [⟦3]}"]), &["an input must be a string, not a number"]);
    check(
        &composite(&[CREATE, CREATE, "{type: Flatten, input: ⟦Create}"]),
        &["`Create` could be any of several transforms; give them names; they are in lines 3, 4"],
    );
    check(
        &composite(&["{type: Create, name: A, config: {elements: [1]}}", "{type: Create, name: ⟦A, config: {elements: [1]}}"]),
        &["the name `A` is used twice"],
    );
    let outer = "{type: composite, name: C, transforms: [{type: Flatten, input: ⟦Create}]}";
    check(&composite(&[CREATE, outer]), &["`Create` is outside of this composite"]);
    let inner = "{type: composite, name: C, transforms: [{type: Create, config: {elements: [1]}}], output: ⟦Creat}";
    check(&composite(&[inner]), &["there is no transform `Creat` here; did you mean `Create`?"]);
}

#[test]
fn inputs_that_do_not_fit() {
    check(&composite(&[CREATE, "{type: ⟦Flatten}"]), &["`Flatten` needs an input"]);
    check(
        "pipeline:\n  type: chain\n  transforms:\n    - {type: ⟦LogForTesting}\n",
        &["`LogForTesting` needs an input; a chain begins with a source"],
    );
    check(&composite(&[CREATE, "{type: Create, name: B, input: ⟦Create, config: {elements: [1]}}"]), &["`Create` could be any"]);
    check(
        &composite(&["{type: Create, name: A, config: {elements: [1]}}", "{type: Create, name: B, input: ⟦A, config: {elements: [1]}}"]),
        &["`Create` is a source and reads no input"],
    );
    check(&composite(&[CREATE, "{type: LogForTesting, input: {a: ⟦Create, b: Create}}"]), &["`LogForTesting` has one input, not 2"]);
    let sink = "{type: WriteToJson, input: Create, config: {path: a}}";
    check(&composite(&[CREATE, sink, "{type: Flatten, input: ⟦WriteToJson}"]), &["`WriteToJson` has no output"]);
    check(
        "pipeline:\n  type: chain\n  transforms:\n    - {type: Create, config: {elements: [1]}}\n    - {type: WriteToJson, config: {path: a}}\n    - {type: ⟦Flatten}\n",
        &["`WriteToJson` has no output; in a chain"],
    );
    let parts = "{type: Partition, input: Create, config: {by: x, outputs: [a, b]}}";
    check(
        &composite(&[CREATE, parts, "{type: Flatten, input: ⟦Partition}"]),
        &["`Partition` has several outputs: read `Partition.a` or `Partition.b`"],
    );
    let no_output = "{type: composite, name: C, transforms: [{type: Create, config: {elements: [1]}}]}";
    check(&composite(&[no_output, "{type: Flatten, input: ⟦C}"]), &["`C` has no output: say which with `output`"]);
}

#[test]
fn cycles() {
    check(&composite(&["{type: Flatten, input: ⟦Flatten}"]), &["`Flatten` reads its own output"]);
    check(
        &composite(&[
            "{type: Flatten, name: A, input: ⟦B}",
            "{type: LogForTesting, name: B, input: C}",
            "{type: LogForTesting, name: C, input: A}",
        ]),
        &["a cycle: `A` ← `B` ← `C` ← `A`"],
    );
    check(
        &composite(&[
            "{type: composite, name: X, input: Y, transforms: [{type: Flatten, name: A, input: input}], output: A}",
            "{type: LogForTesting, name: Y, input: ⟦X}",
        ]),
        &["a cycle: `Y` ← `X/A` ← `Y`"],
    );
    check(
        &composite(&[CREATE, "⟦{type: composite, name: X, input: X, transforms: [{type: Flatten, name: A, input: input}], output: input}"]),
        &["the output of this composite is its own input"],
    );
}

#[test]
fn windowing() {
    let with = |windowing: &str| between(&format!("{{type: Flatten, windowing: {windowing}}}"));
    check(&with("⟦3"), &["`windowing` must be a mapping, not a number"]);
    check(&with("{⟦size: 3}").replace("{⟦size", "⟦{size"), &["`windowing` needs `type`"]);
    check(&with("{type: ⟦fxed, size: 3}"), &["there are no `fxed` windows; did you mean `fixed`?"]);
    check(&with("{type: sliding, size: 3, period: ⟦0}"), &["the period of a window must be more than 0"]);
    check(
        // What is missing because of the slip is not told besides.
        &with("{type: sessions, ⟦gop: 3}"),
        &["unknown key `gop` of `windowing`; did you mean `gap`?"],
    );
    check(&with("{type: ⟦calendar, unit: days}"), &["Beam's `windowing` has no calendar windows"]);
    check(&with("⟦{type: fixed}"), &["`windowing` needs `size`"]);
    check(&with("{type: fixed, size: ⟦3x}"), &["`size`: `3x` is not a duration"]);
    check(&with("{type: fixed, size: ⟦0s}"), &["must be more than 0"]);
    check(&with("{type: fixed, size: ⟦[3]}"), &["`size` must be a duration such as 60s, not a list"]);
    check(&with("{type: global, ⟦trigger: x}"), &["unknown key `trigger` of `windowing`"]);
    check(&with("⟦'{\"type\": \"fixed\"}'"), &["`windowing` needs `size`"]);
    check(&between("{type: ⟦WindowInto}"), &["`WindowInto` needs `windowing`"]);
    let other = "{type: Create, name: B, windowing: {type: fixed, size: 1}, config: {elements: [1]}}";
    let plain = "{type: Create, name: A, config: {elements: [1]}}";
    check(
        &composite(&[plain, other, "⟦{type: Flatten, input: [A, B]}"]),
        &["the inputs of `Flatten` have different windowing: `A` has global, `B/WindowInto[output]` has fixed 1s"],
    );
}

#[test]
fn joins() {
    let a = "{type: Create, name: A, config: {elements: [1]}}";
    let b = "{type: Create, name: B, config: {elements: [1]}}";
    let join = |input: &str, config: &str| composite(&[a, b, &format!("{{type: Join, input: {input}, config: {config}}}")]);
    let two = |config: &str| join("{a: A, b: B}", config);
    check(&join("⟦[A, B]", "{equalities: k}"), &["needs two inputs or more, not 1; name each input"]);
    check(&two("{type: inner}").replace("type: Join", "type: ⟦Join"), &["`Join` needs `equalities`"]);
    check(&two("{equalities: k, type: ⟦outr}"), &["unknown type of join `outr`; did you mean `outer`?"]);
    check(&two("{equalities: k, type: {outer: [⟦c]}}"), &["`c` is no input of this join; did you mean"]);
    check(&two("{equalities: k, type: ⟦{outer: a}}"), &["this is no type of join; write `inner`"]);
    check(&two("{equalities: [⟦{a: k}]}"), &["an equality names a column of two inputs or more"]);
    check(&two("{equalities: [{a: k, ⟦x: k}]}"), &["`x` is no input of this join"]);
    check(&two("{equalities: k, fields: {a: [k], b: [⟦k]}}"), &["two fields `k`; give one of them another name: `{new_name: k}`"]);
    check(&two("{equalities: k, fields: {a: ⟦3}}"), &["a list or a mapping, not a number"]);
    check(&two("{equalities: k, ⟦on: k}"), &["unknown key `on` of `Join`"]);
    check(&join("{a: A, b: B, c: ⟦A}", "{equalities: [{a: k, b: k}]}"), &["no equality joins the input `c` to an input before it"]);
    let windowed = "{type: Create, name: B, windowing: {type: fixed, size: 1}, config: {elements: [1]}}";
    let join = "⟦{type: Join, input: {a: A, b: B}, config: {equalities: k}}";
    check(&composite(&[a, windowed, join]), &["have different windowing: `A` has global, `B/WindowInto[output]` has fixed 1s; give each"]);
}

#[test]
fn joins_by_time() {
    let a = "{type: Create, name: A, config: {elements: [1]}}";
    let of = |kind: &str, input: &str, config: &str| composite(&[a, &format!("{{type: {kind}, input: {input}, config: {config}}}")]);
    let interval = |config: &str| of("IntervalJoin", "{left: A, right: A}", config);
    let as_of = |config: &str| of("AsOfJoin", "{right: A, left: A}", config);
    check(&interval("{equalities: k}").replace("type: Int", "type: ⟦Int"), &["needs `before` or `after`; a right row pairs if"]);
    check(&interval("{equalities: k, before: ⟦-5s}"), &["`before`: `-5s` is not a duration"]);
    check(&interval("{equalities: k, after: 5s, ⟦within: 5s}"), &["unknown key `within` of `IntervalJoin`"]);
    check(&interval("{equalities: [{left: k, ⟦rigt: k}], after: 5s}"), &["`rigt` is no input of this join; did you mean `right`?"]);
    check(&interval("{equalities: ⟦[], after: 5s}"), &["an equality names a column of `left` and one of `right`"]);
    check(
        &of("IntervalJoin", "{left: A, other: ⟦A}", "{equalities: k, after: 5s}"),
        &["needs the inputs `left` and `right`, and no others"],
    );
    check(&as_of("{equalities: k}").replace("type: AsOf", "type: ⟦AsOf"), &["`AsOfJoin` needs `tolerance`"]);
    check(&as_of("{equalities: k, tolerance: 1m, type: ⟦outer}"), &["an `AsOfJoin` gives out rows of `left` only"]);
}

#[test]
fn triggers() {
    let with = |trigger: &str| {
        between(&format!("{{type: WindowIntoWithTriggers, config: {{windowing: {{type: fixed, size: 60s}}, trigger: {trigger}}}}}"))
    };
    check(&with("⟦alway"), &["there is no trigger `alway`; did you mean `always`?"]);
    check(&with("{type: after_count, count: ⟦0}"), &["`count` must be a whole number from 1"]);
    check(&with("⟦{type: after_processing_time}"), &["the trigger needs `delay`"]);
    check(&with("{type: after_any, triggers: ⟦[]}"), &["`triggers` is empty"]);
    check(
        &with("{type: after_watermark, erly: always}").replace("erly", "⟦erly"),
        &["unknown key `erly` of the trigger; did you mean `early`?"],
    );
    check(&with("⟦7"), &["the trigger must be a mapping"]);
    let whole = |config: &str| between(&format!("{{type: WindowIntoWithTriggers, config: {config}}}"));
    check(&whole("{windowing: {type: global}, accumulation_mode: ⟦discard}"), &["`accumulation_mode` cannot be `discard`"]);
    check(&whole("{windowing: {type: calendar, unit: ⟦years}}"), &["a calendar window has no unit `years`"]);
    check(&whole("{windowing: {type: calendar, unit: days, time_zone: ⟦Europe/Berln}}"), &["is no time zone"]);
    check(
        &whole("{windowing: {type: calendar, unit: months, day_of_month: ⟦31}}"),
        &["`day_of_month` must be a whole number from 1 to 28"],
    );
}

#[test]
fn watermarks() {
    let set = |config: &str| between(&format!("{{type: SetWatermark, config: {config}}}"));
    check(&set("{policy: {type: ⟦adaptve}}"), &["there is no watermark policy `adaptve`; did you mean `adaptive`?"]);
    check(&set("{policy: {type: adaptive, quantile: ⟦1.5}}"), &["`quantile` must be a number above 0"]);
    check(&set("{policy: ⟦{type: adaptive, min: 10s, max: 5s}}"), &["`min` is 10s, which is more than `max`, 5s"]);
    check(&set("{⟦policy: {type: punctuated}}"), &["`policy` needs `marker`"]);
    check(&set("{policy: {type: processing_time}, time: ⟦now}"), &["`time` cannot be `now`"]);
    let create = "{type: Create, config: {elements: [{a: 1}]}}";
    let set = "{type: SetWatermark, input: X, config: {policy: {type: processing_time}}}";
    let combine = "{type: Combine, name: X, input: Create, config: {group_by: a, combine: {n: count}}}";
    check(&composite(&[create, combine, &format!("⟦{set}")]), &["`SetWatermark` stands behind `X`"]);
    let assign = "⟦{type: AssignTimestamps, input: SetWatermark, config: {timestamp: a}}";
    check(
        &composite(&[create, &set.replace("X", "Create"), assign]),
        &["sets event times that the watermark of `SetWatermark` knows nothing of"],
    );
    let early = "{type: WindowIntoWithTriggers, input: Create, config: {windowing: {type: global}, trigger: {type: repeatedly, trigger: {type: after_count, count: 3}}}}";
    let levels = "⟦{type: RollUp, input: WindowIntoWithTriggers, config: {group_by: a, combine: {n: count}, levels: [1m]}}";
    check(&composite(&[create, early, levels]), &["a `RollUp` has no other trigger"]);
    let once =
        "⟦{type: WindowIntoWithTriggers, input: Create, config: {windowing: {type: global}, trigger: {type: after_count, count: 3}}}";
    check(&composite(&[create, once]), &["may be over before its window"]);
}

#[test]
fn queries() {
    let a = "{type: Create, name: A, config: {elements: [1]}}";
    let sql = |input: &str, config: &str| composite(&[a, &format!("{{type: Sql, input: {input}, config: {config}}}")]);
    check(&sql("A", "{}").replace("type: Sql", "type: ⟦Sql"), &["`Sql` needs `query`"]);
    check(&sql("A", "{query: SELECT x FROM ⟦a}"), &["there is no input `a`; its inputs are PCOLLECTION"]);
    check(&sql("{a: A, b: A}", "{query: SELECT x FROM a JOIN ⟦c ON a.x = c.x}"), &["there is no input `c`"]);
    check(&sql("A", "{query: SELECT x FROM PCOLLECTION ORDER BY ⟦x}"), &["rows of a stream have no order"]);
    check(&sql("A", "{query: 'SELECT x, ⟦nosuch(x) FROM PCOLLECTION'}"), &["there is no function `nosuch`"]);
    check(&sql("A", "{query: ⟦DROP TABLE x}"), &["a query begins with SELECT, not with `DROP`"]);
}

#[test]
fn configs_of_connectors() {
    let sink = |config: &str| composite(&[CREATE, &format!("{{type: WriteToJson, input: Create, config: {config}}}")]);
    check(&sink("{⟦pth: x, path: y}"), &["unknown key `pth`; did you mean `path`?"]);
    check(&sink("{path: ⟦3}"), &["path must be a string"]);
    check(&sink("{path: x, roll: {size: ⟦true}}"), &["roll.size must be a size"]);
    check(&sink("⟦7"), &["config must be a mapping, not a number"]);
    check(&sink("{path: x, ⟦error_handling: {output: bad}}"), &["unknown key `error_handling`"]);
    check(&composite(&["{type: ⟦ReadFromJson}"]), &["missing key `path`"]);
}

#[test]
fn error_outputs() {
    let read = |handling: &str| composite(&[&format!("{{type: ReadFromJson, config: {{path: a, error_handling: {handling}}}}}")]);
    check(
        &read("{output: ⟦bad}"),
        &[
            "nobody reads the error output `bad` of `ReadFromJson`, so its rows would be lost; give some transform `input: ReadFromJson.bad`",
        ],
    );
    check(&read("⟦bad"), &["`error_handling` must be a mapping, not a string"]);
    check(&read("{⟦}").replace("⟦}", "}").replace("error_handling", "⟦error_handling"), &["`error_handling` needs `output`"]);
    check(&read("{output: ⟦late}"), &["`late` cannot be the name of the error output"]);
    check(&between("{type: LogForTesting, config: {⟦error_handling: {output: x}}}"), &["unknown key `error_handling` of `LogForTesting`"]);
    // One slip is told once: the output that is misspelt is not unread too.
    let keep = "{type: Filter, input: Create, config: {keep: x, error_handling: {output: bad}}}";
    check(&composite(&[CREATE, keep, "{type: Flatten, input: ⟦Filter.bed}"]), &["`Filter` has no output `bed`; did you mean `bad`?"]);
    // An output of a composite that nobody reads loses rows as well.
    let lost = "{type: composite, name: C, input: Create, transforms: [{type: Filter, input: input, config: {keep: x, error_handling: {output: ⟦bad}}}], output: {o: Filter.bad}}";
    check(&composite(&[CREATE, lost]), &["nobody reads the error output `bad` of `C/Filter`"]);
}

#[test]
fn expressions_and_aggregates() {
    check(
        &between("{type: Filter, config: {language: ⟦python, keep: x > 1}}"),
        &["expressions in python are not available; use `language: generic`"],
    );
    check(&between("{type: Filter, config: {language: ⟦slq, keep: x > 1}}"), &["unknown language `slq`; did you mean `sql`?"]);
    check(&between("{type: ⟦MapToFields-python, config: {fields: {a: b}}}"), &["expressions in python are not available"]);
    check(&between("{type: ⟦Filter}"), &["`Filter` needs `keep`"]);
    check(&between("{type: Filter, config: {keep: ⟦[1]}}"), &["an expression must be a string, a number or a boolean, not a list"]);
    check(&between("{type: Filter, config: {keep: ⟦''}}"), &["an expression is missing"]);
    check(&between("{type: MapToFields, config: {fields: {a: {⟦callable: 'lambda x: x'}}}}"), &["`callable` is code in Python"]);
    check(&between("{type: MapToFields, config: {fields: ⟦[a]}}"), &["`fields` must be a mapping, not a list"]);
    check(&between("{type: MapToFields, config: {⟦drop: a, fields: {a: b}}}"), &["`drop` needs `append: true`"]);
    check(&between("{type: MapToFields, config: {append: ⟦maybe, fields: {a: b}}}"), &["`append` must be true or false"]);
    check(&between("{type: Combine, config: {group_by: a, combine: {n: ⟦cuont}}}"), &["unknown aggregate `cuont`; did you mean `count`?"]);
    let function = |function: &str| between(&format!("{{type: Combine, config: {{group_by: a, combine: {{n: {{fn: {function}}}}}}}}}"));
    check(&function("⟦count_distict"), &["unknown aggregate `count_distict`; did you mean `count_distinct`?"]);
    check(&function("⟦top"), &["the config of `top` needs `n`"]);
    check(&function("{type: top, config: {n: ⟦0}}"), &["`n` must be a whole number from 1 to 10000"]);
    check(&function("{type: top, config: {n: 1, order: ⟦large}}"), &["`order` must be largest or smallest, not `large`"]);
    check(&function("{type: sum, config: {⟦n: 1}}"), &["unknown key `n` of the config of `sum`"]);
    check(&function("{type: quantiles, config: {q: ⟦0.5}}"), &["`q` must be a list of numbers from 0 to 1, such as [0.5, 0.99]"]);
    check(&function("{type: approx_quantile, config: {q: ⟦1.5}}"), &["`q` must be a number from 0 to 1, such as 0.99"]);
    check(&function("{type: approx_count_distinct, config: {precision: ⟦3}}"), &["`precision` must be a whole number from 4 to 18"]);
    check(
        &between("{type: Combine, config: {group_by: a, combine: {n: {⟦value: x}}}}")
            .replace("{⟦value", "{value")
            .replace("{n: {", "{⟦n: {"),
        &["`n` needs `fn`"],
    );
    check(&between("{type: ⟦Combine, config: {combine: {n: count}}}"), &["`Combine` needs `group_by`"]);
    check(&between("{type: Combine, config: {group_by: [a, ⟦a], combine: {n: count}}}"), &["`a` stands twice in `group_by`"]);
    check(&between("{type: Combine, config: {group_by: a, combine: {⟦a: count}}}"), &["`a` is a field of `group_by` already"]);
}

#[test]
fn values_of_other_transforms() {
    check(&between("{type: AssignTimestamps, config: {timestamp: t, unit: ⟦min}}"), &["unknown unit `min`"]);
    check(&between("{type: LogForTesting, config: {level: ⟦INFOS}}"), &["unknown level `INFOS`; did you mean `INFO`?"]);
    check(
        &between("{type: ExtractWindowingInfo, config: {fields: [⟦window_strat]}}"),
        &["unknown windowing info `window_strat`; did you mean `window_start`?"],
    );
    check(&between("{type: Flatten, config: {⟦a: 1}}"), &["unknown key `a` of `Flatten`"]);
    check(&composite(&[CREATE, "{type: Partition, input: Create, config: {by: x, outputs: [a, ⟦a]}}"]), &["the output `a` is given twice"]);
}

#[test]
fn providers() {
    let with = |provider: &str| format!("{}providers:\n  - {provider}\n", composite(&[CREATE]));
    check(&format!("{}providers: ⟦x\n", composite(&[CREATE])), &["`providers` must be a list"]);
    check(&with("{type: ⟦python, transforms: {}}"), &["unknown provider type `python`; there are `wasm` for plugins"]);
    check(&with("{include: ⟦a.yaml}"), &["cannot read folder/a.yaml: there is no such file"]);
    check(&with("{type: wasm, ⟦config: {}, transforms: {}}"), &["the provider's config needs `plugin`"]);
    check(&with("{type: wasm, config: {plugin: ⟦gone.wasm}, transforms: {}}"), &["the plugin `gone.wasm`: there is no such file"]);
    check(
        &with("{type: wasm, config: {plugin: parse.wasm}, transforms: {Parse: ⟦prase}}"),
        &["the plugin has no transform `prase`; did you mean `parse`?"],
    );
    check(
        &with("{type: wasm, config: {plugin: parse.wasm}, transforms: {Filter: ⟦parse}}"),
        &["there is already a transform type `Filter`"],
    );
    let used = |config: &str| {
        let transform = format!("{{type: ⟦Parse, input: Create, config: {config}}}");
        let file = composite(&[CREATE, &transform]);
        let file = if config.contains('⟦') { file.replacen("⟦Parse", "Parse", 1) } else { file };
        format!("{file}providers: [{{type: wasm, config: {{plugin: parse.wasm}}, transforms: {{Parse: parse}}}}]\n")
    };
    check(&used("{word: x}"), &["the plugin's config needs `limit`"]);
    check(&used("{limit: ⟦1.5}"), &["`limit` must be of type integer"]);
    check(&used("{limit: 1, ⟦wrod: x}"), &["the plugin's config has no key `wrod`; did you mean `word`?"]);
}

#[test]
fn options() {
    let with = |options: &str| format!("{}options: {{pelton: {options}}}\n", composite(&[CREATE]));
    check(&with("{⟦paralelism: 3}"), &["unknown key `paralelism` of `options.pelton`; did you mean `parallelism`?"]);
    check(&with("{parallelism: ⟦0}"), &["`parallelism` must be a whole number from 1"]);
    check(&with("{memory: ⟦1 elephant}"), &["`memory` must be a size such as 512MiB"]);
    check(&with("{name: ⟦a/b}"), &["`a/b` is no name"]);
    check(&with("{checkpoint: {interval: ⟦10ms}}"), &["`interval` must be from 100ms to 60s"]);
    check(&with("{checkpoint: {retain: ⟦0}}"), &["`retain` must be a whole number from 1 to 1000"]);
    check(&with("{checkpoint: {⟦intervall: 1s}}"), &["unknown key `intervall` of `checkpoint`; did you mean `interval`?"]);
    check(&with("{delivery: ⟦at_most_once}"), &["`delivery` is `exactly_once` or `at_least_once`"]);
    check(&with("{state: {backend: ⟦rocksdb}}"), &["`backend` is `memory` or `fjall`"]);
    check(&with("{uids: {Create: ⟦''}}"), &["a uid is a text of 1 to 200 characters"]);
    check(&with("{watermark: {delay: ⟦-1s}}"), &["`delay`: `-1s` is not a duration"]);
    check(&with("{watermark: {sources: {⟦Creat: {delay: 1s}}}}"), &["there is no source `Creat`; did you mean `Create`?"]);
}

#[test]
fn templates() {
    check(
        "pipeline: {{ ⟦nothing }}\nb: {{ ⟦more }}\n",
        &["the variable `nothing` is not defined; set it with `--set nothing=value`", "`more`"],
    );
    check("pipeline:\n  {% if ⟦%}\n", &["template: unexpected end of block"]);
    // Positions are those of the file, not of the text that the template makes.
    let text = "{% set a = 'x' %}\n{# two\nlines #}pipeline:\n{%- for i in [1] %}\n  transforms:\n    - {type: Create, config: {elements: [1]}}\n    - {type: {{ 'Filter' }}, input: Create, ⟦confg: {}, config: {keep: x}}\n{% endfor %}\n";
    check(text, &["unknown key `confg`"]);
}

#[test]
fn all_findings_come_in_one_go() {
    let text = composite(&[
        "{type: ⟦Craete, name: A}",
        "{type: Filter, name: B, input: A, config: {⟦kep: x, keep: x}}",
        "{type: Flatten, name: C, input: [B, ⟦D]}",
        "{type: Combine, input: C, windowing: {type: ⟦sldng}, config: {group_by: a, combine: {n: ⟦medain}}}",
    ]);
    check(&text, &["unknown transform type", "unknown key `kep`", "no transform `D`", "sldng", "unknown aggregate"]);
}

#[test]
fn too_much_of_everything() {
    let deep = format!("pipeline: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(render(&findings(&deep)).contains("deep"));
    let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for level in 1..9 {
        laughs += &format!("b{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    assert!(render(&findings(&laughs)).contains("more than"));
}

fn findings(text: &str) -> Vec<Diagnostic> {
    load_with(text, &[]).expect_err("a bad file")
}

#[test]
fn a_finding_shows_its_line() {
    let shown = render(&findings(&composite(&[CREATE, "{type: Flatten, input: Craete}"])));
    let expected = "error: there is no transform `Craete` here\n --> folder/test.yaml:4:29\n  |\n4 |     - {type: Flatten, input: Craete}\n  |                              ^^^^^^\n  = help: did you mean `Create`?\n";
    let column = shown.lines().nth(1).and_then(|line| line.rsplit(':').next()).map(str::to_string);
    assert_eq!(shown, expected.replace("4:29", &format!("4:{}", column.unwrap_or_default())));
}

#[test]
fn explode_reshuffle_match_all_and_schemas() {
    check(&between("{type: Explode, config: {⟦fields: [a, b]}}"), &["needs `cross_product`; `true` gives every combination"]);
    check(&between("{type: Explode, config: {fields: [a, ⟦a], cross_product: true}}"), &["`a` stands twice"]);
    check(&between("{type: ⟦Explode}"), &["`Explode` needs `fields`"]);
    check(&between("{type: Reshuffle, config: {num_buckets: ⟦0}}"), &["at least 1"]);
    check(&between("{type: MatchAll, config: {empty_match_treatment: ⟦ALOW}}"), &["did you mean `ALLOW`?"]);
    check(&between("{type: ValidateWithSchema, config: {schema: {properties: {a: {type: ⟦int}}}}}"), &["`int` is no type"]);
    check(&between("{type: Filter, config: {keep: x, output_schema: {$ref: ⟦b}}}"), &["`$ref` of JSON Schema is not available"]);
    check(
        &between("{type: Filter, config: {keep: x, output_schema: {type: object, ⟦error_handling: {output: b}}}}"),
        &["`output_schema` has no `error_handling` of its own"],
    );
    check(
        &composite(&[
            CREATE,
            "{type: Partition, name: P, input: Create, config: {by: x, outputs: [a], ⟦output_schema: {type: object}}}",
            "{type: WriteToJson, input: P.a, config: {path: b}}",
        ]),
        &["`Partition` has no main output for `output_schema`"],
    );
    check(
        &composite(&[
            CREATE,
            "{type: Filter, input: Create, config: {keep: x, ⟦output_schema: {}, error_handling: {output: e, threshold: ⟦2}}}",
            "{type: WriteToJson, input: Filter, config: {path: b}}",
            "{type: WriteToJson, name: E, input: Filter.e, config: {path: b}}",
        ])
        .replace("⟦output_schema", "output_schema"),
        &["`threshold` must be a number from 0 to 1"],
    );
    check(
        &composite(&[
            CREATE,
            "{type: Filter, input: Create, config: {keep: x, output_schema: {}, error_handling: {output: ⟦e}}}",
            "{type: WriteToJson, input: Filter, config: {path: b}}",
        ]),
        &["nobody reads the error output `e`"],
    );
}

#[test]
fn a_stateful_transform_has_a_key_and_no_sessions() {
    let file = |source: &str, transform: &str| {
        format!(
            "pipeline:\n  type: chain\n  source: {{type: Create, config: {{elements: [1]}}{source}}}\n  transforms:\n    - {transform}\n  sink: {{type: WriteToJson, config: {{path: b}}}}\n\
             providers: [{{type: wasm, config: {{plugin: parse.wasm}}, transforms: {{Count: count, Parse: parse, Top: top}}}}]\n"
        )
    };
    check(&file("", "{type: ⟦Count}"), &["`Count` keeps state and needs a `key`; say which columns"]);
    check(&file("", "{type: Count, config: {⟦key: []}}"), &["`key` has no columns"]);
    check(&file("", "{type: Count, config: {key: [a, ⟦a]}}"), &["`a` stands twice"]);
    check(&file("", "{type: Parse, config: {limit: 1, ⟦key: [a]}}"), &["`Parse` is stateless and has no `key`"]);
    check(
        &file("", "{type: ⟦Top}"),
        &["`Top` is an aggregation, to be used in a `Combine`; write `combine: {out: {value: column, fn: {type: Top}}}`"],
    );
    check(
        &file(", windowing: {type: sessions, gap: 10}", "⟦{type: Count, config: {key: [a]}}"),
        &["`Count` cannot keep state within sessions; state is kept by window"],
    );
}

#[test]
fn a_grouping_that_waits_for_an_end_that_never_comes() {
    let pipeline = |windows: &str| {
        format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {{type: ReadFromJson, config: {{path: endless}}}}\n{windows}    - ⟦{{type: Combine, config: {{group_by: [], combine: {{n: count}}}}}}\n"
        )
    };
    check(
        &pipeline(""),
        &["`Combine` would never give a row: it waits for the end of `ReadFromJson`, which has none; give it `windowing`"],
    );
    let never = "    - {type: WindowIntoWithTriggers, config: {windowing: {type: global}, trigger: {type: after_watermark}}}\n";
    check(&pipeline(never), &["would never give a row"]);
    for good in [
        "    - {type: WindowIntoWithTriggers, config: {windowing: {type: global}, trigger: {type: repeatedly, trigger: {type: after_count, count: 3}}}}\n",
        "    - {type: WindowInto, config: {windowing: {type: fixed, size: 3}}}\n",
    ] {
        let text = pipeline(good).replace('⟦', "");
        assert!(load_with(&text, &[]).is_ok(), "{}", render(&load_with(&text, &[]).unwrap_err()));
    }
}

#[test]
fn a_fanout_where_parts_would_change_what_comes_out() {
    let pipeline = |windowing: &str, more: &str| {
        format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {CREATE}\n    - {{type: WindowIntoWithTriggers, config: {{windowing: {windowing}}}}}\n    - ⟦{{type: Combine, config: {{group_by: [], {more}}}}}\n"
        )
    };
    let (fixed, count) = ("{type: fixed, size: 3}", "combine: {n: count}, fanout: 4");
    let trigger = ", trigger: {type: repeatedly, trigger: {type: after_count, count: 3}}";
    let says = "the parts of a `fanout` would change what the windows or the trigger of `Combine` give out; it goes with the default";
    check(&pipeline("{type: sliding, size: 4, period: 2}", count), &[says]);
    check(&pipeline("{type: sessions, gap: 4}", count), &[says]);
    check(&pipeline(&format!("{fixed}{trigger}"), count), &[says]);
    check(&pipeline(&format!("{fixed}, accumulation_mode: accumulating"), count), &[says]);
    let config = |config: &str| between(&format!("{{type: Combine, config: {{group_by: [], {config}}}}}"));
    for number in ["1", "0", "-2", "1.5", "many"] {
        check(&config(&format!("combine: {{n: count}}, fanout: ⟦{number}")), &["`fanout` must be a whole number of at least 2"]);
    }
    check(
        &config("combine: {n: {value: element, fn: group}}, ⟦fanout: 2"),
        &["`fanout` gains nothing with `group`: the parts of a list hold all its rows"],
    );
    for windowing in [fixed, "{type: global}", "{type: calendar, unit: days}"] {
        let text = pipeline(windowing, count).replace('⟦', "");
        assert!(load_with(&text, &[]).is_ok(), "{}", render(&load_with(&text, &[]).unwrap_err()));
    }
}

#[test]
fn lookup_joins() {
    let with = |config: &str| between(&format!("{{type: LookupJoin, config: {{{config}}}}}"));
    let table = "table: {type: Create, config: {elements: [{id: 1}]}}";
    check(&with("on: {a: id}").replace("type: Lookup", "type: ⟦Lookup"), &["`LookupJoin` needs `table`"]);
    check(
        &with("table: {type: ⟦ReadFromJsn}, on: {a: id}"),
        &["no source `ReadFromJsn` to read a table with; did you mean `ReadFromJson`?"],
    );
    check(&with("table: {type: ⟦WriteToJson}, on: {a: id}"), &["there is no source `WriteToJson`"]);
    check(
        &with("table: {type: ReadFromJson, config: {⟦pth: x, path: y}}, on: {a: id}"),
        &["`ReadFromJson`: unknown key `pth`; did you mean `path`?"],
    );
    check(&with(&format!("{table}, on: ⟦id")), &["`on` must be a mapping, not a string"]);
    check(&with(&format!("{table}, on: {{a: id}}, type: ⟦outer")), &["a `LookupJoin` cannot be `outer`; known names: left, inner"]);
    check(&with(&format!("{table}, on: {{a: id}}, type: inner, ⟦default: {{x: 1}}")), &["so `default` says nothing"]);
    check(&with(&format!("{table}, on: {{a: id}}, refresh: ⟦0s")), &["`refresh` must be more than 0s"]);
    check(&with(&format!("{table}, on: {{a: id}}, fields: {{n: id, ⟦n: id}}")), &["the key `n` is given twice"]);
}

#[test]
fn side_inputs() {
    let with = |source: &str, transform: &str| {
        composite(&[
            "{type: Create, name: A, config: {elements: [1]}}",
            source,
            transform,
            "{type: WriteToJson, input: M, config: {path: b}}",
        ])
    };
    let map = |input: &str, sides: &str, expression: &str| {
        let config = format!("language: sql, side_inputs: {{{sides}}}, fields: {{x: \"{expression}\"}}");
        with(
            "{type: Create, name: B, config: {elements: [1]}}",
            &format!("{{type: MapToFields, name: M, input: {input}, config: {{{config}}}}}"),
        )
    };
    let ok = "lookup('b').v";
    check(
        &map("A", "b: {as: singleton}", ok).replace("side_inputs:", "⟦side_inputs:"),
        &["its own input must be called `main`; write `input: {main: …, b: …}`"],
    );
    check(
        &map("{main: A, c: ⟦B}", "⟦b: {as: singleton}", ok),
        &["the input `c` is not in `side_inputs`", "the side input `b` is no input of `MapToFields`"],
    );
    check(&map("{main: A, bb: ⟦B}", "⟦b: {as: singleton}", ok), &["did you mean `b`?", "`input` has `bb`: call both the same"]);
    check(&map("{main: A, b: B}", "⟦main: {as: singleton}, b: {as: singleton}", ok), &["`main` is the input whose rows are worked on"]);
    let sides = |side: &str| map("{main: A, b: B}", &format!("b: {{{side}}}"), ok);
    check(&sides("").replace("b: {}", "⟦b: {}"), &["the side input `b` needs `as`"]);
    check(&sides("as: ⟦singelton"), &["cannot be read as `singelton`; did you mean `singleton`?"]);
    check(&sides("as: dict").replace("b: {as", "⟦b: {as"), &["is a dict and needs a `key`; say which of its columns"]);
    check(&sides("as: singleton, ⟦key: k"), &["is no dict, so it has no `key`"]);
    check(&sides("as: iterable, ⟦default: {v: 1}"), &["is empty, so it has no `default`"]);
    check(&sides("as: singleton, ⟦fresh: 1s"), &["unknown key `fresh` of the side input `b`; did you mean `refresh`?"]);
    check(&sides("as: singleton, refresh: ⟦0s"), &["`refresh` must be more than 0s"]);
    check(
        &sides("as: singleton, refresh: 1m").replace("- {type: Map", "- ⟦{type: Map"),
        &["`refresh` says nothing for the side input `b` of `M`"],
    );
    let dict = |expression: &str| map("{main: A, b: B}", "b: {as: dict, key: k}", expression);
    check(&dict("1 + ⟦lookup('c', k).v"), &["there is no side input `c`"]);
    check(&dict("⟦lookup('b').v"), &["`b` is a dict: look up a key, `lookup('b', key).v`"]);
    check(&dict("⟦lookup('b', k)"), &["does not say which column it means; write `lookup('tag', key).column`"]);
    check(&dict("⟦lookup('b', lookup('b', k).v).v"), &["the key of a lookup cannot be looked up itself"]);
    check(&map("{main: A, b: B}", "b: {as: iterable}", "⟦lookup('b', k).v"), &["`b` is no dict and has no keys: write `lookup('b').v`"]);
    check(
        &between("{type: Filter, config: {language: sql, keep: \"⟦lookup('b', k).v\"}}"),
        &["reads a side input, and there is none here"],
    );
    check(
        &between("{type: Partition, config: {language: sql, outputs: [a], by: \"⟦lookup('b', k).v\"}}").replace("  sink", "  #sink"),
        &["reads a side input"],
    );
    // What windows make impossible.
    let windowed = |main: &str, side: &str, config: &str| {
        let source = format!("{{type: WindowInto, name: B, input: A, windowing: {{{side}}}}}");
        let main = format!("{{type: WindowInto, name: C, input: A, windowing: {{{main}}}}}");
        composite(&[
            "{type: Create, name: A, config: {elements: [1]}}",
            &source,
            &main,
            &format!(
                "⟦{{type: Filter, name: M, input: {{main: C, b: B}}, config: {{language: sql, keep: \"{ok} = 1\", side_inputs: {{b: {{{config}}}}}}}}}"
            ),
            "{type: WriteToJson, input: M, config: {path: b}}",
        ])
    };
    check(
        &windowed("type: fixed, size: 5s", "type: sessions, gap: 5s", "as: singleton"),
        &["is in sessions, and no row of another input belongs to one"],
    );
    check(&windowed("type: global", "type: fixed, size: 5s", "as: singleton"), &["`M` has no windows, but its side input `b` has"]);
    let endless = |config: &str| {
        map("{main: A, b: B}", &format!("b: {{{config}}}"), ok)
            .replace("{type: Create, name: B, config: {elements: [1]}}", "{type: ReadFromJson, name: B, config: {path: endless}}")
    };
    check(
        &endless("as: iterable").replace("- {type: Map", "- ⟦{type: Map"),
        &["never ends, so an iterable of all its rows would grow without end"],
    );
}

//! Random pipelines of the subset that needs no language: a graph of transforms over a few rows, all from one seed.
//!
//! Rows have nulls, texts beyond ASCII, equal and unordered event times. What is known to differ is left out here and stands
//! in the corpus instead: comparisons with `<=`, aggregates over nulls.

use serde_json::{Value as Json, json};
use std::fmt::Write;

/// A column's type, as far as the choice of transforms depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Text,
    Bool,
    Ints,
    /// Not used any further.
    Opaque,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
}

/// One transform of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub kind: &'static str,
    /// Steps that it reads, each with an output; of several, `Flatten` reads all.
    pub inputs: Vec<(usize, String)>,
    pub config: Json,
}

/// A pipeline.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Inputs come first.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The pipeline's text: one line a transform, so that a line is enough to find it.
    pub fn yaml(&self) -> String {
        let mut text = String::from("pipeline:\n  transforms:\n");
        for step in &self.steps {
            let mut spec = json!({"type": step.kind, "name": step.name});
            let reference = |(from, output): &(usize, String)| match output.is_empty() {
                true => self.steps[*from].name.clone(),
                false => format!("{}.{output}", self.steps[*from].name),
            };
            match step.inputs.as_slice() {
                [] => {}
                [one] => spec["input"] = reference(one).into(),
                several => spec["input"] = several.iter().map(reference).collect::<Vec<_>>().into(),
            }
            if !step.config.is_null() {
                spec["config"] = step.config.clone();
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  - {spec}");
        }
        text
    }

    /// A case that shows what happened, for `--file`.
    pub fn reproduction(&self, name: &str) -> String {
        format!("# Case: {name}\n{}", self.yaml())
    }
}

/// A small generator of numbers (SplitMix64): the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True once in `n`.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What can be read: an output of a step.
#[derive(Clone, Debug)]
struct Open {
    step: usize,
    output: String,
    columns: Vec<Column>,
    windowing: String,
    /// A grouping has given its rows the ends of windows as their times.
    grouped: bool,
}

struct Maker {
    dice: Dice,
    plan: Plan,
    open: Vec<Open>,
}

const TEXTS: [&str; 8] = ["x", "y", "z", "", "ä€", "東京", "a b", "x\"y"];
const WINDOWINGS: [&str; 10] = [
    r#"{"type": "fixed", "size": 10}"#,
    r#"{"type": "fixed", "size": "2500ms", "offset": "1s"}"#,
    r#"{"type": "fixed", "size": "1m"}"#,
    r#"{"type": "sliding", "size": 10, "period": 5}"#,
    r#"{"type": "sliding", "size": "4s", "period": "1500ms", "offset": "500ms"}"#,
    r#"{"type": "sliding", "size": 3, "period": 7}"#,
    r#"{"type": "sessions", "gap": 5}"#,
    r#"{"type": "sessions", "gap": "1500ms"}"#,
    r#"{"type": "global"}"#,
    r#"{"type": "fixed", "size": 0.5}"#,
];

/// The pipeline with this number of a seed.
pub fn plan(seed: u64, number: u64) -> Plan {
    let mut maker = Maker { dice: Dice(seed.wrapping_mul(0x0100_0000_01B3) ^ number), plan: Plan::default(), open: Vec::new() };
    for _ in 0..1 + maker.dice.below(2) {
        maker.source();
    }
    for _ in 0..2 + maker.dice.below(5) {
        maker.step();
    }
    maker.plan
}

impl Maker {
    fn push(&mut self, kind: &'static str, inputs: Vec<(usize, String)>, config: Json) -> usize {
        let step = self.plan.steps.len();
        self.plan.steps.push(Step { name: format!("T{step}"), kind, inputs, config });
        step
    }

    fn source(&mut self) {
        let rows = 1 + self.dice.below(8);
        let column = |name: &str, kind, nullable| Column { name: name.into(), kind, nullable };
        let (nullable_k, nullable_i) = (self.dice.once_in(3), self.dice.once_in(3));
        let mut elements: Vec<Json> = (0..rows).map(|_| self.row(nullable_k, nullable_i)).collect();
        // A column of nothing but nulls has no type.
        if nullable_k && elements.iter().all(|row| row["k"].is_null()) {
            elements[0]["k"] = json!("x");
        }
        if nullable_i && elements.iter().all(|row| row["i"].is_null()) {
            elements[0]["i"] = json!(7);
        }
        let has = |name: &str| elements.iter().any(|row| row[name].is_null());
        let columns = vec![
            column("k", Kind::Text, has("k")),
            column("i", Kind::Int, has("i")),
            column("n", Kind::Int, false),
            column("f", Kind::Float, false),
            column("b", Kind::Bool, false),
            column("l", Kind::Ints, false),
            column("t", Kind::Float, false),
        ];
        let step = self.push("Create", vec![], json!({"elements": elements}));
        self.open.push(Open { step, output: String::new(), columns, windowing: WINDOWINGS[8].into(), grouped: false });
        self.timestamps(self.open.len() - 1);
    }

    fn row(&mut self, nullable_k: bool, nullable_i: bool) -> Json {
        let dice = &mut self.dice;
        let k = if nullable_k && dice.once_in(3) { Json::Null } else { json!(*dice.pick(&TEXTS)) };
        let i = if nullable_i && dice.once_in(3) { Json::Null } else { json!(dice.below(9) as i64 - 4) };
        let n = if dice.once_in(12) { json!(1_i64 << 40) } else { json!(dice.below(100) as i64 - 50) };
        let f = json!((dice.below(4_000) as f64 - 2_000.0) / 16.0 + 0.125);
        let mut list: Vec<i64> = (0..1 + dice.below(3)).map(|_| dice.below(10) as i64).collect();
        if dice.once_in(5) {
            list.truncate(1);
        }
        // Quarters of seconds in a small range: equal times and times on the edges of windows are common. None is before the
        // epoch: Beam cuts the end of a window that ends there to the first instant after it.
        // Whole milliseconds: Beam cuts finer times before it adds a gap, and the ends of sessions would differ.
        let t = json!(dice.below(160) as f64 / 4.0 + if dice.once_in(4) { 0.125 } else { 0.0 });
        json!({"k": k, "i": i, "n": n, "f": f, "b": dice.once_in(2), "l": list, "t": t})
    }

    fn timestamps(&mut self, at: usize) {
        let open = self.open[at].clone();
        let step = self.push("AssignTimestamps", vec![(open.step, open.output.clone())], json!({"timestamp": "t"}));
        self.open[at] = Open { step, output: String::new(), ..open };
    }

    /// One more transform behind something that is open; sometimes that stays open, so that it has two readers.
    fn step(&mut self) {
        let at = self.dice.below(self.open.len());
        let open = self.open[at].clone();
        let from = vec![(open.step, open.output.clone())];
        let made = match self.dice.below(12) {
            0 | 1 => self.window(&open, from),
            2 | 3 => self.map(&open, from),
            4 => self.filter(&open, from),
            5 => self.partition(&open, from),
            6 => self.explode(&open, from),
            7..=9 => self.combine(&open, from),
            10 => self.flatten(&open),
            _ => self.passing(&open, from),
        };
        if made.is_empty() {
            return;
        }
        if !self.dice.once_in(4) {
            self.open.remove(at);
        }
        self.open.extend(made);
    }

    fn window(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let windowing = self.dice.pick(&WINDOWINGS).to_string();
        if open.grouped && windowing.contains("sessions") {
            // They begin at the ends of other windows, which Beam cuts to milliseconds.
            return Vec::new();
        }
        let parsed: Json = serde_json::from_str(&windowing).expect("JSON");
        let step = self.push("WindowInto", from, json!({"windowing": parsed}));
        vec![Open { step, output: String::new(), windowing, ..open.clone() }]
    }

    fn comparison(&mut self, open: &Open) -> Option<String> {
        let comparable: Vec<&Column> =
            open.columns.iter().filter(|column| !column.nullable && matches!(column.kind, Kind::Int | Kind::Float | Kind::Text)).collect();
        if comparable.is_empty() {
            return None;
        }
        let left = (*self.dice.pick(&comparable)).clone();
        let sign = *self.dice.pick(&["<", ">", " < ", " > "]);
        let others: Vec<&&Column> =
            comparable.iter().filter(|other| (other.kind == Kind::Text) == (left.kind == Kind::Text) && other.name != left.name).collect();
        let right = match (left.kind, others.is_empty() || self.dice.once_in(2)) {
            (_, false) => self.dice.pick(&others).name.clone(),
            (Kind::Text, true) => self.dice.pick(&["\"x\"", "\"ä\"", "\"\""]).to_string(),
            (_, true) => self.dice.pick(&["0", "5", "-3", "1.5", "-0.25", "2000000"]).to_string(),
        };
        Some(if self.dice.once_in(2) { format!("{}{sign}{right}", left.name) } else { format!("{right}{sign}{}", left.name) })
    }

    fn map(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let append = self.dice.once_in(2);
        let mut columns = if append { open.columns.clone() } else { Vec::new() };
        let mut config = json!({"fields": {}});
        if append {
            config["append"] = true.into();
            if columns.len() > 2 && self.dice.once_in(2) {
                let dropped = columns.remove(self.dice.below(columns.len()));
                config["drop"] = json!([dropped.name]);
            }
        }
        let step = self.plan.steps.len();
        for number in 0..1 + self.dice.below(4) {
            let name = format!("c{step}_{number}");
            let (text, kind, nullable) = match self.dice.below(6) {
                0 => (self.dice.pick(&["7", "-12", "0"]).to_string(), Kind::Int, false),
                1 => (self.dice.pick(&["2.5", "-0.125"]).to_string(), Kind::Float, false),
                2 => ("\"fixed ä\"".to_string(), Kind::Text, false),
                3 => match self.comparison(open) {
                    Some(text) => (text, Kind::Bool, false),
                    None => continue,
                },
                _ => {
                    let column = self.dice.pick(&open.columns).clone();
                    (column.name.clone(), column.kind, column.nullable)
                }
            };
            config["fields"][&name] = text.into();
            columns.push(Column { name, kind, nullable });
        }
        if config["fields"].as_object().is_none_or(serde_json::Map::is_empty) {
            return Vec::new();
        }
        let step = self.push("MapToFields", from, config);
        vec![Open { step, output: String::new(), columns, ..open.clone() }]
    }

    /// Rows that cannot be compared go to an error output, and from there back.
    fn filter_with_errors(&mut self, open: &Open, from: Vec<(usize, String)>, nullable: &str) -> Vec<Open> {
        let config = json!({"keep": format!("{nullable} < {}", self.dice.below(4)), "error_handling": {"output": "bad"}});
        let step = self.push("Filter", from, config);
        let stripped = self.push("StripErrorMetadata", vec![(step, "bad".into())], Json::Null);
        [step, stripped].map(|step| Open { step, output: String::new(), ..open.clone() }).into()
    }

    fn filter(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        if let Some(nullable) = open.columns.iter().find(|column| column.kind == Kind::Int && column.nullable)
            && self.dice.once_in(2)
        {
            return self.filter_with_errors(open, from, &nullable.name.clone());
        }
        let booleans: Vec<&Column> = open.columns.iter().filter(|column| column.kind == Kind::Bool && !column.nullable).collect();
        let keep = match booleans.is_empty() || self.dice.once_in(2) {
            true => self.comparison(open),
            false => Some(self.dice.pick(&booleans).name.clone()),
        };
        let Some(keep) = keep else { return Vec::new() };
        let step = self.push("Filter", from, json!({"keep": keep}));
        vec![Open { step, output: String::new(), ..open.clone() }]
    }

    fn partition(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let texts: Vec<&Column> = open.columns.iter().filter(|column| column.kind == Kind::Text).collect();
        if texts.is_empty() {
            return Vec::new();
        }
        let by = self.dice.pick(&texts).name.clone();
        let outputs = ["x", "y", "z"][..1 + self.dice.below(3)].to_vec();
        let step = self.push("Partition", from, json!({"by": by, "outputs": outputs, "unknown_output": "other"}));
        let mut made: Vec<Open> = outputs.iter().map(|output| Open { step, output: output.to_string(), ..open.clone() }).collect();
        made.push(Open { step, output: "other".into(), ..open.clone() });
        made
    }

    fn explode(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let lists: Vec<&Column> = open.columns.iter().filter(|column| column.kind == Kind::Ints).collect();
        if lists.is_empty() {
            return Vec::new();
        }
        let field = self.dice.pick(&lists).name.clone();
        let step = self.push("Explode", from, json!({"fields": field}));
        let columns = open.columns.iter().map(|column| match column.name == field {
            true => Column { kind: Kind::Int, ..column.clone() },
            false => column.clone(),
        });
        vec![Open { step, output: String::new(), columns: columns.collect(), ..open.clone() }]
    }

    fn combine(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let step = self.plan.steps.len();
        let keys: Vec<Column> =
            open.columns.iter().filter(|column| matches!(column.kind, Kind::Text | Kind::Int | Kind::Bool)).cloned().collect();
        let mut columns: Vec<Column> = Vec::new();
        for _ in 0..self.dice.below(3).min(keys.len()) {
            let key = self.dice.pick(&keys).clone();
            if !columns.contains(&key) {
                columns.push(key);
            }
        }
        let group_by: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let mut combine = json!({});
        for number in 0..1 + self.dice.below(3) {
            let name = format!("a{step}_{number}");
            let value = self.dice.pick(&open.columns).clone();
            let choices: &[&str] = match (value.kind, value.nullable) {
                (Kind::Int | Kind::Float, false) => &["sum", "min", "max", "mean", "count", "group"],
                (Kind::Text, false) => &["min", "max", "count", "group"],
                (Kind::Bool, false) => &["any", "all", "count"],
                (Kind::Ints, false) => &["concat", "count"],
                (Kind::Int | Kind::Float | Kind::Text, true) => &["count", "group"],
                _ => continue,
            };
            let function = *self.dice.pick(choices);
            let kind = match function {
                "sum" | "min" | "max" => value.kind,
                "mean" => Kind::Float,
                "count" => Kind::Int,
                "any" | "all" => Kind::Bool,
                _ => Kind::Opaque,
            };
            combine[&name] = json!({"value": value.name, "fn": function});
            columns.push(Column { name, kind, nullable: false });
        }
        if combine.as_object().is_none_or(serde_json::Map::is_empty) {
            return Vec::new();
        }
        let config = match group_by.as_slice() {
            [one] => json!({"group_by": one, "combine": combine}),
            _ => json!({"group_by": group_by, "combine": combine}),
        };
        let step = self.push("Combine", from, config);
        vec![Open { step, output: String::new(), columns, grouped: true, ..open.clone() }]
    }

    fn flatten(&mut self, open: &Open) -> Vec<Open> {
        let same: Vec<&Open> =
            self.open.iter().filter(|other| other.windowing == open.windowing && other.columns == open.columns).collect();
        let other = (*self.dice.pick(&same)).clone();
        if (other.step, &other.output) == (open.step, &open.output) {
            return Vec::new();
        }
        let inputs = vec![(open.step, open.output.clone()), (other.step, other.output.clone())];
        let step = self.push("Flatten", inputs, Json::Null);
        vec![Open { step, output: String::new(), ..open.clone() }]
    }

    fn passing(&mut self, open: &Open, from: Vec<(usize, String)>) -> Vec<Open> {
        let mut columns = open.columns.clone();
        let step = self.plan.steps.len();
        let step = match self.dice.below(3) {
            0 => self.push("Reshuffle", from, Json::Null),
            1 if columns.iter().all(|column| column.kind != Kind::Opaque) => self.push("LogForTesting", from, json!({"level": "DEBUG"})),
            _ => {
                let mut fields = json!({});
                for (number, info) in ["timestamp", "window_end", "window_type", "pane_info"].iter().enumerate() {
                    if self.dice.once_in(2) || number == 0 {
                        let name = format!("w{step}_{number}");
                        fields[&name] = (*info).into();
                        columns.push(Column { name, kind: Kind::Opaque, nullable: true });
                    }
                }
                self.push("ExtractWindowingInfo", from, json!({"fields": fields}))
            }
        };
        vec![Open { step, output: String::new(), columns, ..open.clone() }]
    }
}

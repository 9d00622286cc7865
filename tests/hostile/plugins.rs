//! The plugins that are written to break the host, and how each has to end.
//!
//! Most are transforms of the guests `hostile`, `hostile-state` and `hostile-combine`: every transform that these describe is here, and one
//! that is not named below must be told to have broken the contract. The others are made of bytes.

use crate::modules::{Module, body, importing, tangled, unsigned, with_module};
use pelton_plugin::Role;

/// One plugin and its pipeline.
pub struct Case {
    pub name: String,
    pub component: Component,
    /// Name in the component.
    pub transform: String,
    pub role: Role,
    /// In YAML; with none, those of [`QUICK`].
    pub limits: &'static str,
    pub rows: usize,
    pub end: End,
}

/// Other bytes of the same.
type Change = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// Where the bytes come from.
pub enum Component {
    /// A guest of `tests/programs`.
    Guest(&'static str),
    /// Made of the bytes of the guest `hostile`.
    Made(Change),
    /// A file of so many bytes, all zero but for a preamble.
    Sparse(u64),
}

/// How a hostile pipeline ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It does not start, or stops; the message has these words and names the plugin.
    Told(&'static str),
    /// So many rows go to the error output with these words, the rest goes on.
    DeadLetters(usize, &'static str),
    /// As if nothing had been.
    Well,
    /// However, within the time.
    Somehow,
}

/// Short deadlines, so that two hundred plugins do not take an hour.
const QUICK: &str = "{call_deadline: 30ms, batch_time: 400ms, setup_deadline: 300ms}";
/// The same with rows that cannot be isolated in the error output.
const LENIENT: &str = "{call_deadline: 30ms, batch_time: 400ms, on_budget: error_output}";
/// Filling memory takes more than a tick.
const SMALL: &str = "{call_deadline: 500ms, batch_time: 5s, memory_bytes: 8MiB}";
const SMALL_ROWS: &str = "{call_deadline: 500ms, batch_time: 5s, max_row_bytes: 1MiB}";

/// Rows of most pipelines: one batch. The row with the number 7 has -8 instead.
pub const ROWS: usize = 64;

/// Transforms of the guest `hostile` that are honest.
const HONEST: [&str; 13] =
    ["identity", "empty", "filter", "map", "flat-map", "tagged", "row-error", "context", "later", "earlier", "metrics", "words", "sum"];
/// Those of `hostile-state`.
const HONEST_STATE: [&str; 4] = ["nothing", "all-kinds", "reads", "pages"];

/// How a transform of a guest ends, where it is not told to have broken the contract: limits, rows, end.
fn special(transform: &str) -> Option<(&'static str, usize, End)> {
    use End::*;
    Some(match transform {
        "loop" | "log-flood" => (QUICK, ROWS, Told("limits.call_deadline")),
        "panic" => (QUICK, ROWS, Told("row 3 has no brakes")),
        "silent-trap" => (QUICK, ROWS, Told("without saying why")),
        "poison-panic" => (QUICK, ROWS, DeadLetters(1, "number -8 is poison")),
        "poison-loop" | "drop-loops" => (LENIENT, ROWS, DeadLetters(1, "limits.call_deadline")),
        "poison-memory" => (SMALL, ROWS, DeadLetters(1, "limits.memory_bytes")),
        "poison-stack" => (SMALL, ROWS, DeadLetters(1, "recursion is too deep")),
        "drop-panics" => (QUICK, ROWS, DeadLetters(1, "a drop has no brakes")),
        "fails" => (QUICK, ROWS, DeadLetters(1, "a number is negative")),
        "poison-copies" => ("{call_deadline: 2s, batch_time: 60s}", ROWS, DeadLetters(1, "limits.output_bytes")),
        "poison-outputs" => ("{call_deadline: 2s, batch_time: 60s, output_bytes: 1MiB}", ROWS, DeadLetters(1, "limits.output_bytes")),
        "poison-errors-huge" => (SMALL_ROWS, ROWS, DeadLetters(1, "four times limits.max_row_bytes")),
        "log-huge" => (SMALL_ROWS, ROWS, Told("four times limits.max_row_bytes")),
        "large-result" => (SMALL_ROWS, 16, Well),
        "busy" => ("{call_deadline: 10s, batch_time: 60s, cpu_per_second: 100ms}", ROWS, Well),
        "leaky" | "chatty" | "close-panics" | "close-loops" => (QUICK, ROWS, Well),
        "grows" | "grows-rudely" => ("{call_deadline: 2s, setup_deadline: 300ms, recycle_bytes: 2MiB}", 20_000, Well),
        "allocates-beyond" => (QUICK, 20_000, Well),
        "allocates-over" => (LENIENT, 20_000, Somehow),
        "frees-badly" => (QUICK, 20_000, Told("without saying why")),
        "open-fails" => (QUICK, ROWS, Told("`limit` is missing")),
        "open-panics" => (QUICK, ROWS, Told("has no brakes")),
        "open-loops" => (QUICK, ROWS, Told("limits.setup_deadline")),
        // Of `hostile-state`.
        "timer-endless" => ("{timer_fires: 50}", ROWS, DeadLetters(ROWS, "limits.timer_fires")),
        "fires-panic" => (LENIENT, ROWS, DeadLetters(ROWS, "a timer has no brakes")),
        "timer-past" => ("{timer_fires: 50}", ROWS, DeadLetters(1, "limits.timer_fires")),
        "timer-far" | "expires-past" => (QUICK, ROWS, Well),
        "process-panics" => (QUICK, ROWS, Told("process has no brakes")),
        "state-endless" => ("{state_bytes: 50000, on_budget: error_output}", ROWS, DeadLetters(ROWS, "limits.state_bytes")),
        "reads-endless" => (LENIENT, ROWS, DeadLetters(ROWS, "limits.call_deadline")),
        "read-value" | "read-beyond" | "read-group-beyond" | "read-uneven" | "get-of-list" | "get-short" | "get-absent" | "page-beyond" => {
            (QUICK, ROWS, Told("it read state wrongly"))
        }
        "early" => (QUICK, ROWS, Told("earlier than")),
        "huge-value" => (SMALL_ROWS, ROWS, Told("limits.max_row_bytes")),
        // Of `hostile-combine`.
        "add-refuses" => (QUICK, ROWS, Told("13 is refused")),
        "add-panics" => (QUICK, ROWS, Told("add has no brakes")),
        "add-fails" => (QUICK, ROWS, Told("add does not want to")),
        "add-loops" | "extract-loops" => (QUICK, ROWS, Told("limits.call_deadline")),
        "add-hoards" | "extract-hoards" => (SMALL, ROWS, Told("limits.memory_bytes")),
        "add-huge" => (SMALL_ROWS, ROWS, Told("limits.max_row_bytes")),
        "extract-panics" => (QUICK, ROWS, Told("extract has no brakes")),
        "extract-fails" => (QUICK, ROWS, Told("extract does not want to")),
        "extract-worn" | "merge-worn" => (QUICK, ROWS, Well),
        "extract-huge" => (SMALL_ROWS, ROWS, Somehow),
        name if name.starts_with("merge-") || name.starts_with("create-") => (SMALL_ROWS, ROWS, Somehow),
        _ => return None,
    })
}

/// All transforms of a guest but the honest ones.
pub fn of_guest(guest: &'static str, names: impl Iterator<Item = (String, Role)>) -> Vec<Case> {
    let honest = |name: &str| HONEST.contains(&name) || guest == "hostile-state" && HONEST_STATE.contains(&name);
    let case = |(transform, role): (String, Role)| {
        let (limits, rows, end) = special(&transform).unwrap_or((QUICK, ROWS, End::Told("broke the contract")));
        // Two say the same in other words.
        let end = if role == Role::Combine && transform == "open-fails" { End::Told("it does not want to") } else { end };
        let end = if role == Role::Combine && transform == "open-panics" { End::Told("there is no sum") } else { end };
        Case { name: format!("{guest} {transform}"), component: Component::Guest(guest), transform, role, limits, rows, end }
    };
    names.filter(|(name, _)| !honest(name)).map(case).collect()
}

fn made(name: &str, end: End, make: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Case {
    Case {
        name: name.into(),
        component: Component::Made(Box::new(make)),
        transform: "filter".into(),
        role: Role::Transform,
        limits: QUICK,
        rows: ROWS,
        end,
    }
}

/// The guest `hostile` with this name written where its `describe` looks.
fn describing(mode: &'static str, end: End) -> Case {
    made(&format!("describe {mode}"), end, move |component| {
        let mark = b"hostile-describe:";
        let mut bytes = component.to_vec();
        let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the guest has the mark") + mark.len();
        bytes[at..at + mode.len()].copy_from_slice(mode.as_bytes());
        bytes
    })
}

fn module(name: &str, end: End, module: impl Fn() -> Module + 'static) -> Case {
    made(name, end, move |component| with_module(component, &module().encode(), 1))
}

/// Plugins that are made of bytes.
pub fn of_bytes() -> Vec<Case> {
    use End::*;
    let asked = "it fails when asked what it is";
    let mut cases = vec![
        describing("panics", Told(asked)),
        describing("aborts", Told(asked)),
        describing("loops", Told("limits.setup_deadline")),
        describing("hoards", Told("limits.memory_bytes")),
        describing("recurses", Told("recursion is too deep")),
        describing("calls-host", Told("limits.setup_deadline")),
        describing("not-json", Told("is not JSON")),
        describing("deep-json", Told("is not JSON")),
        describing("no-transforms", Told("has no transform")),
        describing("same-name", Told("two transforms of the name")),
        describing("wrong-role", Told("of the role an aggregation")),
        describing("huge-name", Told(asked)),
        describing("many-transforms", Told("")),
        module("start loops", Told("limits.setup_deadline"), || Module::starting(&[0x03, 0x40, 0x0c, 0x00, 0x0b])),
        module("start traps", Told(asked), || Module::starting(&[0x00])),
        module("memory of 4 GiB", Told("limits.memory_bytes"), || Module {
            memory: Some([vec![0], unsigned(65_536)].concat()),
            ..Module::default()
        }),
        module("memory that grows for ever", Told("limits.memory_bytes"), || {
            // loop: grow by 16 pages, again
            let code = [0x03, 0x40, 0x41, 0x10, 0x40, 0x00, 0x1a, 0x0c, 0x00, 0x0b];
            Module { memory: Some(vec![0, 1]), ..Module::starting(&code) }
        }),
        module("table of 5,000,000", Told("limits.table_elements"), || Module { table: Some(5_000_000), ..Module::default() }),
        module("table that grows", Told("limits.table_elements"), || {
            // null, 2,000,000, table.grow 0, drop
            let code = [vec![0xd0, 0x70, 0x41], unsigned(2_000_000), vec![0xfc, 0x0f, 0x00, 0x1a]].concat();
            Module { table: Some(1), ..Module::starting(&code) }
        }),
        module("10,000 functions", Well, || Module { functions: vec![body(&[]); 10_000], ..Module::default() }),
        module("more functions than there may be", Told("does not compile"), || Module {
            functions: vec![body(&[]); 1_000_001],
            ..Module::default()
        }),
        module("function that compiles slowly", Somehow, || Module { functions: vec![tangled(3_000)], ..Module::default() }),
        module("function of 12,000 nested blocks", Somehow, || {
            let code = [[0x02, 0x40].repeat(12_000), vec![0x0b; 12_000]].concat();
            Module { functions: vec![body(&code)], ..Module::default() }
        }),
        module("function that is too large", Told("does not compile"), || Module {
            functions: vec![body(&vec![0x01; 8_000_000])],
            ..Module::default()
        }),
        module("40 MB of data", Well, || Module { data: 40 << 20, ..Module::default() }),
        module("memory of 64 bits", Told("does not compile"), || Module { memory: Some(vec![0x04, 1]), ..Module::default() }),
        module("shared memory", Told("does not compile"), || Module { memory: Some(vec![0x03, 1, 1]), ..Module::default() }),
        made("100 instances", Told("limits.instances"), |component| with_module(component, &Module::default().encode(), 100)),
        made("cut off", Told("cut off"), |component| component[..component.len() / 2].to_vec()),
        made("damaged", Told(""), |component| {
            let mut bytes = component.to_vec();
            bytes[component.len() / 3..][..64].fill(0xff);
            bytes
        }),
        made("no component", Told("does not start as"), |_| b"a plugin, honestly".to_vec()),
    ];
    cases.push(Case { component: Component::Sparse(300 << 20), ..made("300 MiB", Told("are allowed"), |_| vec![]) });
    for interface in [
        "wasi:filesystem/types",
        "wasi:sockets/tcp",
        "wasi:http/outgoing-handler",
        "wasi:cli/environment",
        "wasi:random/random",
        "wasi:clocks/wall-clock",
        "pelton:plugin/http",
        "pelton:plugin/random",
    ] {
        // Of interfaces that can be granted it wants functions that they do not have.
        let told = if interface.starts_with("wasi:http") { "no grant gives" } else { "are not those of the contract" };
        let version = if interface.starts_with("pelton:") { "0.1.0" } else { "0.2.0" };
        let interface = format!("{interface}@{version}");
        cases.push(made(&format!("imports {interface}"), Told(told), move |_| importing(&["pelton:plugin/state@0.1.0", &interface])));
    }
    cases.push(made("imports everything", Told("no grant gives"), |_| {
        let names: Vec<String> = (0..900).map(|number| format!("every:thing/number{number}@1.0.0")).collect();
        importing(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }));
    cases
}

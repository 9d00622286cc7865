//! What calls of a plugin wait for while another plugin is compiled: not at all, in a process of its own, and in this one. `cargo xtask bench compile`.
//!
//! One thread calls a plugin with 64 rows every 2 ms, which is a small part of what it could do; a call's latency is from when it was due to its end, so
//! that a call which could not begin counts as well. Meanwhile a component of many functions is compiled again and again. The three ways take turns.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and measures by the clock")]

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::Batch;
use pelton_core::batch::Positions;
use pelton_plugin::{Compiler, Engine, EngineOptions, Instance, Limits, compile_as_child};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const CALLS_A_ROUND: u32 = 2_500;
const INTERVAL: Duration = Duration::from_millis(2);
const ROWS: i64 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, subcommand, _, memory, _, seconds] = &arguments[..]
        && subcommand == "compile-plugin"
    {
        std::process::exit(compile_as_child(memory.parse().unwrap(), seconds.parse().unwrap()).into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.cache/components/hostile.wasm");
    let runs = Engine::new(EngineOptions::default()).expect("the engine starts");
    let plugin = runs.load(&path).expect("hostile.wasm loads; `cargo xtask setup` builds it");
    let batch = records();
    let binding = plugin.bind("filter", &serde_json::json!({}), &batch.schema(), &Limits::default()).expect("binds");
    let mut instance = binding.open().expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");

    let heavy = heavy(300, 4_000);
    let child = Compiler {
        program: "/proc/self/exe".into(),
        memory: 4 << 30,
        memory_setting: "",
        time: Duration::from_secs(600),
        time_setting: "",
    };
    let here = Engine::new(EngineOptions::default()).expect("the engine starts");
    let there = Engine::new(EngineOptions { compiler: Some(child), ..EngineOptions::default() }).expect("the engine starts");
    let ways = [("nothing is compiled", None), ("in a process of its own", Some(&there)), ("in this process", Some(&here))];
    let mut latencies = [vec![], vec![], vec![]];
    let mut compiled = [0; 3];
    for _ in 0..ROUNDS {
        for (way, (_, engine)) in ways.iter().enumerate() {
            let (over, count) = (AtomicBool::new(false), AtomicU32::new(0));
            std::thread::scope(|scope| {
                if let Some(engine) = engine {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            // No plugin: it is refused once it is compiled.
                            assert!(engine.load_bytes("heavy", &heavy).is_err());
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                latencies[way].extend(runtime.block_on(calls(&mut instance, &batch)));
                over.store(true, Ordering::Relaxed);
            });
            compiled[way] += count.into_inner();
        }
    }
    println!("{:26}{:>12}{:>12}{:>12}{:>12}{:>10}", "", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "compiled");
    for (way, (name, _)) in ways.iter().enumerate() {
        let of = &mut latencies[way];
        of.sort();
        let at = |share: f64| of[((of.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        println!("{name:26}{:>12.0}{:>12.0}{:>12.0}{:>12.0}{:>10}", at(0.5), at(0.99), at(0.999), at(1.0), compiled[way]);
    }
}

async fn calls(instance: &mut Instance, batch: &Batch) -> Vec<Duration> {
    let start = Instant::now();
    let mut latencies = vec![];
    for call in 0..CALLS_A_ROUND {
        let due = start + INTERVAL * call;
        tokio::time::sleep_until(due.into()).await;
        instance.process(batch).await.expect("processes");
        latencies.push(due.elapsed());
    }
    latencies
}

fn records() -> Batch {
    let fields = vec![Field::new("text", DataType::Utf8, false), Field::new("number", DataType::Int64, false)];
    let texts = StringArray::from_iter_values((0..ROWS).map(|row| format!("{row:092}")));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(texts), Arc::new(Int64Array::from_iter_values(0..ROWS))]);
    Batch::new(rows.expect("two columns of one length"), (0..ROWS).collect(), Positions::None)
}

/// A component around one core module, of functions that add to their argument very often.
fn heavy(functions: usize, steps: usize) -> Vec<u8> {
    let step = |step: usize| [vec![0x41, (step % 64) as u8], vec![0x6a, 0x22, 0]].concat();
    let body = [vec![0, 0x20, 0], (0..steps).flat_map(step).collect(), vec![0x0b]].concat();
    let code = [length(body.len()), body].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(3, &[length(functions), vec![0; functions]].concat()),
        section(10, &[length(functions), code.repeat(functions)].concat()),
    ];
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &module.concat())].concat()
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [vec![id], length(body.len()), body.to_vec()].concat()
}

fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

//! WASI for language runtimes: stubs that deny everything that is not granted otherwise.
//!
//! They are made from what a component imports, so any version of the interfaces is served: a few functions that runtimes call before the author's
//! code are answered here, whatever else can say "access denied" says it, and the rest traps with its name. Nothing waits, nothing is opened, and
//! no answer depends on the machine unless a grant says so (decision 0026).

use crate::contract::log::{Host as _, Level};
use crate::granted::since_1970;
use crate::sandbox::Sandbox;
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, Resource, ResourceAny, ResourceType, Val};
use wasmtime::{Error, Result, StoreContextMut};

/// Output that has no end of line yet is written when it has so many bytes.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// What a stream says that it takes at once.
const WRITABLE_BYTES: u64 = 64 * 1024;
/// How much the count grows that stands for a monotonic clock.
const STEP_NANOS: u64 = 1_000;

/// Every resource of WASI: it has a number and nothing behind it.
struct Stub;

/// Numbers of stubs that mean something.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const OTHER: u32 = 0;

/// Lines that are not whole yet.
#[derive(Default)]
pub(crate) struct Console {
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Defines what a component imports of WASI.
pub(crate) fn add_to_linker(linker: &mut Linker<Sandbox>, engine: &wasmtime::Engine, component: &Component) -> Result<()> {
    for (interface, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if !interface.starts_with("wasi:") {
            continue;
        }
        let mut defined = linker.instance(interface)?;
        for (name, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => defined.resource(name, ResourceType::host::<Stub>(), |_, _| Ok(()))?,
                ComponentItem::ComponentFunc(_) => define(&mut defined, interface, name)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn define(defined: &mut LinkerInstance<'_, Sandbox>, interface: &str, name: &str) -> Result<()> {
    let (interface, function) = (interface.split('@').next().unwrap_or_default().to_string(), name.to_string());
    defined.func_new(name, move |mut store, types, params, results| {
        let mut numbers = Vec::new();
        for param in params {
            if let Val::Resource(resource) = param {
                numbers.push(resource.try_into_resource::<Stub>(&mut store)?.rep());
            }
        }
        let answer = answer(&mut store, (&interface, &function), &numbers, params)?;
        let denied = || types.results().next().and_then(|result| denial(&result));
        match (answer.or_else(denied), results.first_mut()) {
            (Some(answer), Some(result)) => *result = answer,
            (_, None) => {}
            (None, Some(_)) => {
                return Err(Error::msg(format!("`{interface}.{function}` is denied: with `wasi: true` a plugin has stubs of WASI alone")));
            }
        }
        Ok(())
    })
}

/// What a function gives; `None`: it is denied, or gives nothing.
fn answer(
    store: &mut StoreContextMut<'_, Sandbox>,
    (interface, function): (&str, &str),
    numbers: &[u32],
    params: &[Val],
) -> Result<Option<Val>> {
    let stub = |store: &mut StoreContextMut<'_, Sandbox>, number| -> Result<Val> {
        Ok(Val::Resource(ResourceAny::try_from_resource(Resource::<Stub>::new_own(number), store)?))
    };
    let done = |value: Option<Val>| Val::Result(Ok(value.map(Box::new)));
    let sandbox = store.data_mut();
    Ok(Some(match (interface, function) {
        ("wasi:cli/environment", "get-environment") => {
            let pair = |(name, value): (&String, &String)| Val::Tuple(vec![Val::String(name.clone()), Val::String(value.clone())]);
            Val::List(sandbox.granted.env().iter().map(pair).collect())
        }
        ("wasi:cli/environment", "get-arguments") | ("wasi:filesystem/preopens", "get-directories") => Val::List(vec![]),
        ("wasi:cli/environment", "initial-cwd") => Val::Option(None),
        ("wasi:cli/exit", _) => return Err(Error::msg("it ended itself (wasi:cli/exit)")),
        ("wasi:cli/stdout", _) => stub(store, STDOUT)?,
        ("wasi:cli/stderr", _) => stub(store, STDERR)?,
        ("wasi:cli/stdin", _) => stub(store, OTHER)?,
        (terminal, _) if terminal.starts_with("wasi:cli/terminal-") => Val::Option(None),
        ("wasi:clocks/wall-clock", "now") => datetime(if sandbox.granted.grants.wall_clock { since_1970() } else { Default::default() }),
        ("wasi:clocks/wall-clock", "resolution") => datetime(std::time::Duration::from_micros(1)),
        ("wasi:clocks/monotonic-clock", "now") => Val::U64(monotonic(sandbox)),
        ("wasi:clocks/monotonic-clock", "resolution") => Val::U64(STEP_NANOS),
        (_, subscribe) if subscribe.starts_with("subscribe-") || subscribe.ends_with(".subscribe") => stub(store, OTHER)?,
        ("wasi:io/poll", "[method]pollable.ready") => Val::Bool(true),
        ("wasi:io/poll", "[method]pollable.block") => return Ok(None),
        ("wasi:io/poll", "poll") => {
            let Some(Val::List(polled)) = params.first() else { return Ok(None) };
            for resource in polled {
                if let Val::Resource(resource) = resource {
                    resource.try_into_resource::<Stub>(&mut *store)?;
                }
            }
            Val::List((0..polled.len() as u32).map(Val::U32).collect())
        }
        ("wasi:io/streams", "[method]output-stream.check-write") => done(Some(Val::U64(WRITABLE_BYTES))),
        ("wasi:io/streams", "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush") => {
            write(sandbox, numbers.first().copied(), params.get(1));
            done(None)
        }
        ("wasi:io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => done(None),
        ("wasi:io/streams", stream) if stream.starts_with("[method]input-stream.") || stream.starts_with("[method]output-stream.") => {
            Val::Result(Err(Some(Box::new(Val::Variant("closed".into(), None)))))
        }
        ("wasi:random/random" | "wasi:random/insecure", "get-random-bytes" | "get-insecure-random-bytes") => {
            let count = match params.first() {
                Some(Val::U64(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
                _ => 0,
            };
            Val::List(sandbox.random_bytes(count, Some(0))?.into_iter().map(Val::U8).collect())
        }
        ("wasi:random/random" | "wasi:random/insecure", "get-random-u64" | "get-insecure-random-u64") => Val::U64(random(sandbox)?),
        ("wasi:random/insecure-seed", _) => Val::Tuple(vec![Val::U64(random(sandbox)?), Val::U64(random(sandbox)?)]),
        ("wasi:sockets/instance-network", _) => stub(store, OTHER)?,
        _ => return Ok(None),
    }))
}

/// "Access denied", where a result can say it.
fn denial(result: &Type) -> Option<Val> {
    let Type::Result(result) = result else { return None };
    let Some(Type::Enum(codes)) = result.err() else { return None };
    let code = codes.names().find(|code| ["access-denied", "access"].contains(code))?.to_string();
    Some(Val::Result(Err(Some(Box::new(Val::Enum(code))))))
}

fn datetime(time: std::time::Duration) -> Val {
    Val::Record(vec![("seconds".into(), Val::U64(time.as_secs())), ("nanoseconds".into(), Val::U32(time.subsec_nanos()))])
}

fn monotonic(sandbox: &mut Sandbox) -> u64 {
    if sandbox.granted.grants.monotonic_clock {
        return sandbox.progress.nanos();
    }
    sandbox.progress.asked += 1;
    sandbox.progress.asked * STEP_NANOS
}

fn random(sandbox: &mut Sandbox) -> Result<u64> {
    let bytes = sandbox.random_bytes(8, Some(0))?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Lines of the two outputs are lines of the log.
fn write(sandbox: &mut Sandbox, stream: Option<u32>, bytes: Option<&Val>) {
    let Some(Val::List(bytes)) = bytes else { return };
    let is_err = match stream {
        Some(STDOUT) => false,
        Some(STDERR) => true,
        _ => return,
    };
    let (level, mut kept) = match is_err {
        false => (Level::Info, std::mem::take(&mut sandbox.console.out)),
        true => (Level::Warn, std::mem::take(&mut sandbox.console.err)),
    };
    for byte in bytes {
        let Val::U8(byte) = byte else { continue };
        if *byte != b'\n' {
            kept.push(*byte);
        }
        if *byte == b'\n' || kept.len() >= MAX_LINE_BYTES {
            sandbox.write(level, String::from_utf8_lossy(&kept).into_owned());
            kept.clear();
        }
    }
    match is_err {
        false => sandbox.console.out = kept,
        true => sandbox.console.err = kept,
    }
}

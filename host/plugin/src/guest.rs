//! One sandbox: a store with an opened instance, and what its failures are called.

use crate::binding::Binding;
use crate::contract::batch::Failure;
use crate::contract::bytes::{BytesColumnParam, BytesColumnResult};
use crate::contract::combine_fn::Added;
use crate::contract::stateful_do_fn::{KeyedInput, KeyedOpenRequest, KeyedOutcome, StateItemsParam, StateItemsResult};
use crate::contract::{Input, OpenRequest, Opened, Outcome, data, ready};
use crate::error::PluginError;
use crate::limits::Limits;
use crate::meters::Breach;
use crate::plugin::Exports;
use crate::sandbox::{Refused, Sandbox, Stopped, cut};
use crate::schema::flatten_schema;
use crate::stateful::Reads;
use std::time::Duration;
use wasmtime::{Store, Trap, WasmBacktrace};

/// A message or a stack trace is cut here, as the contract says of row errors.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// An opened instance. It is called again only after a call that succeeded.
pub(crate) struct Guest {
    store: Store<Sandbox>,
    exports: Exports,
    opened_bytes: usize,
}

/// A call that failed as a whole and committed nothing.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) stack: String,
    pub(crate) breach: Breach,
    /// Guest time of the call.
    pub(crate) time: Duration,
}

impl Guest {
    /// Instantiates the component and opens the transform.
    pub(crate) fn open(binding: &Binding) -> Result<(Guest, Opened), PluginError> {
        let mut store = binding.plugin.store(&binding.transform, &binding.limits, binding.meters.clone());
        store.data_mut().effects = binding.effects;
        let failed = |message: String, detail: String| PluginError::Open { transform: binding.transform.clone(), message, detail };
        let exports = match binding.plugin.instantiate(binding.role, &mut store, &binding.limits) {
            Ok(exports) => exports,
            Err(error) => {
                let fault = fault(&mut store, &error, &binding.limits);
                return Err(failed(format!("it cannot be instantiated: {}", fault.message), fault.stack));
            }
        };
        let flat = flatten_schema(&binding.input);
        let schema: Vec<_> = flat
            .iter()
            .map(|field| data::FieldParam { name: &field.name, format: &field.format, nullable: field.nullable, children: field.children })
            .collect();
        Sandbox::begin_setup(&mut store, &binding.limits);
        let request = OpenRequest { transform: &binding.transform, config: &binding.config, schema: &schema };
        let key: Vec<u32> = binding.key.iter().map(|column| *column as u32).collect();
        let answer = match &exports {
            Exports::Transform(guest) => ready(guest.call_open(&mut store, request)),
            Exports::Stateful(guest) => ready(guest.call_open(&mut store, KeyedOpenRequest { base: request, key: &key })),
            Exports::Combine(guest) => ready(guest.call_open(&mut store, request)),
        };
        match answer {
            Ok(Ok(opened)) => {
                let opened_bytes = store.data().space.bytes;
                Ok((Guest { store, exports, opened_bytes }, opened))
            }
            Ok(Err(failure)) => {
                Err(failed(cut(&failure.message, MAX_MESSAGE_BYTES).into(), cut(&failure.detail, MAX_MESSAGE_BYTES).into()))
            }
            Err(error) => {
                let fault = fault(&mut store, &error, &binding.limits);
                Err(failed(fault.message, fault.stack))
            }
        }
    }

    /// Calls `process` of a stateless transform. After a fault the guest must not be called again.
    pub(crate) async fn process(&mut self, input: Input<'_>, limits: &Limits) -> Result<Outcome, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Transform(guest) = &self.exports else { unreachable!("the binding's role is that of a stateless transform") };
        let answer = guest.call_process(&mut self.store, input).await;
        self.answered(answer, limits)
    }

    /// Calls `process` of a stateful transform, which may read what `reads` has.
    pub(crate) async fn process_keyed(&mut self, input: KeyedInput<'_>, reads: Reads, limits: &Limits) -> Result<KeyedOutcome, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        self.store.data_mut().reads = Some(reads);
        let Exports::Stateful(guest) = &self.exports else { unreachable!("the binding's role is that of a stateful transform") };
        let answer = guest.call_process(&mut self.store, input).await;
        self.store.data_mut().reads = None;
        self.answered(answer, limits)
    }

    /// Calls `migrate` of a stateful transform.
    pub(crate) async fn migrate(
        &mut self,
        state: &str,
        version: u32,
        items: StateItemsParam<'_>,
        limits: &Limits,
    ) -> Result<StateItemsResult, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Stateful(guest) = &self.exports else { unreachable!("the binding's role is that of a stateful transform") };
        let answer = guest.call_migrate(&mut self.store, state, version, items).await;
        self.answered(answer, limits)
    }

    /// Calls `migrate` of an aggregation.
    pub(crate) async fn migrate_accumulators(
        &mut self,
        version: u32,
        accumulators: BytesColumnParam<'_>,
        limits: &Limits,
    ) -> Result<BytesColumnResult, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_migrate(&mut self.store, version, accumulators).await;
        self.answered(answer, limits)
    }

    /// Calls `create` of an aggregation.
    pub(crate) async fn create(&mut self, limits: &Limits) -> Result<Vec<u8>, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_create(&mut self.store).await;
        self.answered(answer, limits)
    }

    /// Calls `add` of an aggregation.
    pub(crate) async fn add(
        &mut self,
        rows: Input<'_>,
        groups: &[u8],
        accumulators: BytesColumnParam<'_>,
        limits: &Limits,
    ) -> Result<Added, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_add(&mut self.store, rows, groups, accumulators).await;
        self.answered(answer, limits)
    }

    /// Calls `merge` of an aggregation.
    pub(crate) async fn merge(
        &mut self,
        accumulators: BytesColumnParam<'_>,
        groups: &[u8],
        count: u32,
        limits: &Limits,
    ) -> Result<BytesColumnResult, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_merge(&mut self.store, accumulators, groups, count).await;
        self.answered(answer, limits)
    }

    /// Calls `extract` of an aggregation.
    pub(crate) async fn extract(&mut self, accumulators: BytesColumnParam<'_>, limits: &Limits) -> Result<data::ColumnsResult, Fault> {
        Sandbox::begin_call(&mut self.store, limits);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_extract(&mut self.store, accumulators).await;
        self.answered(answer, limits)
    }

    fn answered<T>(&mut self, answer: wasmtime::Result<Result<T, Failure>>, limits: &Limits) -> Result<T, Fault> {
        self.store.data().end();
        match answer {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(failure)) => {
                let stack = cut(&failure.detail, MAX_MESSAGE_BYTES).into();
                Err(Fault { stack, ..self.fail(Breach::Failure, cut(&failure.message, MAX_MESSAGE_BYTES).into()) })
            }
            Err(error) => Err(fault(&mut self.store, &error, limits)),
        }
    }

    /// What a call that came back is called when it must not count.
    pub(crate) fn fail(&self, breach: Breach, message: String) -> Fault {
        self.store.data().meters.breached(breach);
        Fault { message, stack: String::new(), breach, time: self.store.data().time() }
    }

    /// Tells the guest that it ends regularly. False: it failed, and need not be told again.
    pub(crate) fn close(mut self, limits: &Limits) -> bool {
        Sandbox::begin_setup(&mut self.store, limits);
        let closed = match &self.exports {
            Exports::Transform(guest) => ready(guest.call_close(&mut self.store)),
            Exports::Stateful(guest) => ready(guest.call_close(&mut self.store)),
            Exports::Combine(guest) => ready(guest.call_close(&mut self.store)),
        };
        let Err(error) = closed else { return true };
        let Fault { message, .. } = fault(&mut self.store, &error, limits);
        self.store.data().warn(&format!("it failed while it was closed, which changes nothing: {message}"));
        false
    }

    /// Bytes of all its memories.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().space.bytes
    }

    /// Whether its memory has grown beyond the bound for recycling.
    pub(crate) fn is_worn(&self, limits: &Limits) -> bool {
        let bound = if self.opened_bytes > limits.recycle_bytes { self.opened_bytes.saturating_mul(2) } else { limits.recycle_bytes };
        self.store.data().space.bytes > bound
    }
}

/// What a failed call is called: the limit that stopped it, else the guest's last words, else the kind of trap.
pub(crate) fn fault(store: &mut Store<Sandbox>, error: &wasmtime::Error, limits: &Limits) -> Fault {
    let sandbox = store.data_mut();
    let (breach, message) = cause(sandbox, error, limits);
    sandbox.meters.breached(breach);
    Fault { message: cut(&message, MAX_MESSAGE_BYTES).into(), stack: stack_of(error), breach, time: sandbox.time() }
}

fn cause(sandbox: &mut Sandbox, error: &wasmtime::Error, limits: &Limits) -> (Breach, String) {
    match (sandbox.stopped, sandbox.space.refused) {
        (Some(Stopped::Call), _) if sandbox.is_call() => {
            let message = format!("it exceeded its deadline of {} (limits.call_deadline)", duration(limits.call_deadline));
            return (Breach::CallDeadline, message);
        }
        (Some(Stopped::Call), _) => {
            let message = format!("it exceeded its deadline of {} (limits.setup_deadline)", duration(limits.setup_deadline));
            return (Breach::SetupDeadline, message);
        }
        (Some(Stopped::Wall), _) => {
            let message = format!("it was not back within {} on the wall (limits.wall_deadline)", duration(limits.wall_deadline));
            return (Breach::WallDeadline, message);
        }
        (None, Some(Refused::Memory)) => {
            return (Breach::Memory, format!("it exceeded its memory limit of {} bytes (limits.memory_bytes)", limits.memory_bytes));
        }
        (None, Some(Refused::Tables)) => {
            return (Breach::Tables, format!("it exceeded its limit of {} table elements (limits.table_elements)", limits.table_elements));
        }
        (None, None) => {}
    }
    if let Some(words) = sandbox.last_words.take() {
        return (Breach::Trap, words);
    }
    let Some(trap) = error.downcast_ref::<Trap>() else { return untyped(error, limits) };
    let message = match trap {
        // Compiled languages keep a stack of their own in linear memory, below which nothing lies: it often runs out first.
        Trap::StackOverflow => "its call stack is exhausted: its recursion is too deep".into(),
        Trap::MemoryOutOfBounds => {
            "it reached outside its memory: its recursion is too deep for its stack, or it has unsafe code that is wrong".into()
        }
        Trap::UnreachableCodeReached => {
            "it stopped without saying why (an abort, or a panic before the SDK's hook was set); the stack shows where".into()
        }
        trap => format!("it trapped: {trap}"),
    };
    (Breach::Trap, message)
}

/// Failures that wasmtime has no type for.
fn untyped(error: &wasmtime::Error, limits: &Limits) -> (Breach, String) {
    let root = error.root_cause().to_string();
    if root.contains("fuel allocated for hostcalls") {
        let message = match limits.host_call_bytes {
            None => format!("its answer is larger than {} bytes, four times limits.max_row_bytes", limits.call_bytes()),
            Some(bytes) => format!("its answer is larger than {bytes} bytes (limits.host_call_bytes)"),
        };
        return (Breach::HostCall, message);
    }
    if root.contains("resource limit exceeded") {
        let message = format!("it needs more than {} core instances, memories or tables (limits.instances): {root}", limits.instances);
        return (Breach::Instances, message);
    }
    (Breach::Trap, format!("it failed: {root}"))
}

/// As messages have it.
pub(crate) fn duration(time: Duration) -> pelton_core::Duration {
    pelton_core::Duration::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

/// Names of the guest's functions, innermost first, with their places where the component knows them.
fn stack_of(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    cut(&frames(&trace.to_string()).join("\n"), MAX_MESSAGE_BYTES).into()
}

/// The frames of a backtrace's text, which alone has the names as the author wrote them: `  0:  0x1c9 - hostile.wasm!hostile::poison::dig`. Of
/// a component with lines the module is left out, and a frame has a second line `at FILE:LINE:COLUMN` and others for what was inlined.
fn frames(text: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(place) = line.trim_start().strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                *frame += &format!(" at {}", place_of(place));
            }
        } else if let Some((_, frame)) = line.split_once(" - ") {
            frames.push(name_of(frame));
        }
    }
    // How a panic comes about is the same each time: the author's code begins after it.
    let machinery = |frame: &String| ["std::", "core::panicking", "__rustc", "<std::"].iter().any(|part| frame.starts_with(part));
    let skipped = frames.iter().take_while(|frame| machinery(frame)).count();
    if skipped < frames.len() { frames.split_off(skipped) } else { frames }
}

/// A function's name as the author wrote it: without module, hashes and disambiguators of crates.
fn name_of(frame: &str) -> String {
    let in_module = frame.split_once('!').filter(|(module, _)| !module.contains([' ', '<', ':']));
    let mut name = in_module.map_or(frame, |(_, name)| name).to_owned();
    let is_hash = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((rest, hash)) = name.rsplit_once("::h")
        && hash.len() == 16
        && is_hash(hash)
    {
        name.truncate(rest.len());
    }
    while let Some(start) = name.find('[')
        && let Some(length) = name[start..].find(']')
        && is_hash(&name[start + 1..start + length])
    {
        name.replace_range(start..=start + length, "");
    }
    name
}

/// A place as the author knows it: from the crate's `src` on, without the column.
fn place_of(place: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let without_column = match place.rsplit_once(':') {
        Some((rest, column)) if is_number(column) && rest.rsplit_once(':').is_some_and(|(_, line)| is_number(line)) => rest,
        _ => place,
    };
    match without_column.rfind("/src/") {
        Some(at) => without_column[at + 1..].to_owned(),
        None => without_column.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::frames;

    #[test]
    fn frames_have_names_and_places_of_the_author() {
        let bare = "error while executing at wasm backtrace:\n    0:  0x1c9 - hostile.wasm!hostile::poison::dig\n    1:  0x2a - hostile.wasm!<unknown>";
        assert_eq!(frames(bare), ["hostile::poison::dig", "<unknown>"]);
        assert_eq!(frames("0:  0x1 - count::check::h609d0cbdeb3ecf55"), ["count::check"]);
        let panicked = "0: 0x1 - std[a543996e6e7dbf1e]::process::abort\n1: 0x2 - core[c5930c85a12de822]::panicking::panic_fmt\n2: 0x3 - m.wasm!count::check\n3: 0x4 - <std[a5]::io::Read>::read";
        assert_eq!(frames(panicked), ["count::check", "<std::io::Read>::read"]);
        let lines = "error while executing at wasm backtrace:\n    0:   0x22c - core::option::unwrap_failed\n                    at /rustc/1/library/core/src/option.rs:12:5\n    1:   0x3f0 - count::longest\n                    at /home/me/count/src/lib.rs:21:9\n              - count::count\n                    at /home/me/count/src/lib.rs:30:5";
        assert_eq!(
            frames(lines),
            ["core::option::unwrap_failed at src/option.rs:12", "count::longest at src/lib.rs:21", "count::count at src/lib.rs:30"]
        );
    }
}

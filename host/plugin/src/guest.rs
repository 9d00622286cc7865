//! One sandbox: a store with an opened instance, and what its failures are called.

use crate::binding::Binding;
use crate::contract::batch::Failure;
use crate::contract::bytes::{BytesColumnParam, BytesColumnResult};
use crate::contract::combine_fn::Added;
use crate::contract::stateful_do_fn::{KeyedInput, KeyedOpenRequest, KeyedOutcome};
use crate::contract::{Input, OpenRequest, Opened, Outcome, data};
use crate::error::PluginError;
use crate::limits::Limits;
use crate::plugin::Exports;
use crate::sandbox::{Sandbox, Stopped, cut};
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
    /// Guest time of the call.
    pub(crate) time: Duration,
}

impl Guest {
    /// Instantiates the component and opens the transform.
    pub(crate) fn open(binding: &Binding) -> Result<(Guest, Opened), PluginError> {
        let mut store = binding.plugin.store(&binding.transform, &binding.limits);
        let failed = |message: String, detail: String| PluginError::Open { transform: binding.transform.clone(), message, detail };
        let exports = match binding.plugin.instantiate(binding.role, &mut store) {
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
        Sandbox::begin_setup(&mut store);
        let request = OpenRequest { transform: &binding.transform, config: &binding.config, schema: &schema };
        let key: Vec<u32> = binding.key.iter().map(|column| *column as u32).collect();
        let answer = match &exports {
            Exports::Transform(guest) => guest.call_open(&mut store, request),
            Exports::Stateful(guest) => guest.call_open(&mut store, KeyedOpenRequest { base: request, key: &key }),
            Exports::Combine(guest) => guest.call_open(&mut store, request),
        };
        match answer {
            Ok(Ok(opened)) => {
                let opened_bytes = store.data().memory.bytes;
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
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
        let Exports::Transform(guest) = &self.exports else { unreachable!("the binding's role is that of a stateless transform") };
        let answer = guest.call_process(&mut self.store, input).await;
        self.answered(answer, limits)
    }

    /// Calls `process` of a stateful transform, which may read what `reads` has.
    pub(crate) async fn process_keyed(&mut self, input: KeyedInput<'_>, reads: Reads, limits: &Limits) -> Result<KeyedOutcome, Fault> {
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
        self.store.data_mut().reads = Some(reads);
        let Exports::Stateful(guest) = &self.exports else { unreachable!("the binding's role is that of a stateful transform") };
        let answer = guest.call_process(&mut self.store, input).await;
        self.store.data_mut().reads = None;
        self.answered(answer, limits)
    }

    /// Calls `create` of an aggregation.
    pub(crate) async fn create(&mut self, limits: &Limits) -> Result<Vec<u8>, Fault> {
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
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
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
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
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_merge(&mut self.store, accumulators, groups, count).await;
        self.answered(answer, limits)
    }

    /// Calls `extract` of an aggregation.
    pub(crate) async fn extract(&mut self, accumulators: BytesColumnParam<'_>, limits: &Limits) -> Result<data::ColumnsResult, Fault> {
        Sandbox::begin_call(&mut self.store, limits.call_deadline);
        let Exports::Combine(guest) = &self.exports else { unreachable!("the binding's role is that of an aggregation") };
        let answer = guest.call_extract(&mut self.store, accumulators).await;
        self.answered(answer, limits)
    }

    fn answered<T>(&mut self, answer: wasmtime::Result<Result<T, Failure>>, limits: &Limits) -> Result<T, Fault> {
        match answer {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(failure)) => Err(Fault {
                message: cut(&failure.message, MAX_MESSAGE_BYTES).into(),
                stack: cut(&failure.detail, MAX_MESSAGE_BYTES).into(),
                time: self.store.data().time(),
            }),
            Err(error) => Err(fault(&mut self.store, &error, limits)),
        }
    }

    /// Guest time of the last call.
    pub(crate) fn time(&self) -> Duration {
        self.store.data().time()
    }

    /// Tells the guest that it ends regularly; what it answers is of no interest.
    pub(crate) fn close(mut self) {
        Sandbox::begin_setup(&mut self.store);
        let closed = match &self.exports {
            Exports::Transform(guest) => guest.call_close(&mut self.store),
            Exports::Stateful(guest) => guest.call_close(&mut self.store),
            Exports::Combine(guest) => guest.call_close(&mut self.store),
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "a plugin failed while it was closed");
        }
    }

    /// Whether its memory has grown beyond the bound for recycling.
    pub(crate) fn is_worn(&self, limits: &Limits) -> bool {
        let bound = if self.opened_bytes > limits.recycle_bytes { self.opened_bytes.saturating_mul(2) } else { limits.recycle_bytes };
        self.store.data().memory.bytes > bound
    }
}

/// What a failed call is called: the limit that stopped it, else the guest's last words, else the kind of trap.
pub(crate) fn fault(store: &mut Store<Sandbox>, error: &wasmtime::Error, limits: &Limits) -> Fault {
    let sandbox = store.data_mut();
    let message = if sandbox.stopped == Some(Stopped::Deadline) {
        format!(
            "it exceeded its deadline of {} (limits.call_deadline)",
            shown(if sandbox.is_call() { limits.call_deadline } else { crate::sandbox::SETUP_DEADLINE })
        )
    } else if sandbox.memory.refused {
        format!("it exceeded its memory limit of {} bytes (limits.memory_bytes)", limits.memory_bytes)
    } else if let Some(words) = sandbox.last_words.take() {
        words
    } else {
        match error.downcast_ref::<Trap>() {
            // Compiled languages keep a stack of their own in linear memory, below which nothing lies: it often runs out first.
            Some(Trap::StackOverflow) => "its call stack is exhausted: its recursion is too deep".into(),
            Some(Trap::MemoryOutOfBounds) => {
                "it reached outside its memory: its recursion is too deep for its stack, or it has unsafe code that is wrong".into()
            }
            Some(Trap::UnreachableCodeReached) => {
                "it stopped without saying why (an abort, or a panic before the SDK's hook was set); the stack shows where".into()
            }
            Some(trap) => format!("it trapped: {trap}"),
            None => format!("it failed: {}", error.root_cause()),
        }
    };
    Fault { message: cut(&message, MAX_MESSAGE_BYTES).into(), stack: stack_of(error), time: sandbox.time() }
}

fn shown(time: Duration) -> String {
    pelton_core::Duration::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)).to_string()
}

/// Names of the guest's functions, innermost first.
fn stack_of(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    // Its text alone has the names as the author wrote them: "  0:  0x1c9 - hostile.wasm!hostile::poison::dig".
    let text = trace.to_string();
    let frames: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .map(|(_, frame)| frame.split_once('!').map_or(frame, |(_, name)| name))
        .collect();
    cut(&frames.join("\n"), MAX_MESSAGE_BYTES).into()
}

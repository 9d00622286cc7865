//! The bindings of `wit/`, generated. Only `process` is asynchronous: `describe`, `open` and `close` have deadlines of their own and never yield.

wasmtime::component::bindgen!({
    world: "transform",
    path: "../../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
    exports: { "pelton:plugin/do-fn.process": async },
});

pub(crate) use self::exports::pelton::plugin::do_fn::{Input, OpenRequest, Opened, Outcome};
pub(crate) use self::exports::pelton::plugin::plugin as describe;
pub(crate) use self::pelton::plugin::{batch, data, log, spec};

/// The version of the contract that this host implements, as it stands in names of interfaces.
pub(crate) const VERSION: &str = "0.1.0";

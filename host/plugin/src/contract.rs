//! The bindings of `wit/`, generated. Only calls with rows are asynchronous: `describe`, `open` and `close` have deadlines of their own and
//! never yield.
//!
//! One world with every role, so that the roles share their types; a component is asked only for the interfaces of the roles that it has.

wasmtime::component::bindgen!({
    world: "any-role",
    path: "../../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { "pelton:plugin/state": trappable },
    exports: {
        "pelton:plugin/do-fn.process": async,
        "pelton:plugin/stateful-do-fn.process": async,
        "pelton:plugin/combine-fn.create": async,
        "pelton:plugin/combine-fn.add": async,
        "pelton:plugin/combine-fn.merge": async,
        "pelton:plugin/combine-fn.extract": async,
    },
});

pub(crate) use self::exports::pelton::plugin::combine_fn;
pub(crate) use self::exports::pelton::plugin::do_fn::{self, Input, OpenRequest, Opened, Outcome};
pub(crate) use self::exports::pelton::plugin::plugin as describe;
pub(crate) use self::exports::pelton::plugin::stateful_do_fn;
pub(crate) use self::pelton::plugin::{batch, bytes, data, log, spec, state};

/// The version of the contract that this host implements, as it stands in names of interfaces.
pub(crate) const VERSION: &str = "0.1.0";

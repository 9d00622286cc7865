//! The bindings of `wit/`, generated. All calls are asynchronous, because a component that imports `http` cannot be called otherwise; `describe`,
//! `open` and `close` have deadlines of their own and never wait ([`ready`]).
//!
//! One world with every role, so that the roles share their types; a component is asked only for the interfaces of the roles that it has.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

wasmtime::component::bindgen!({
    world: "any-role",
    path: "../../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "pelton:plugin/state": trappable,
        "pelton:plugin/http": async | trappable,
        "pelton:plugin/wall-clock": trappable,
        "pelton:plugin/monotonic-clock": trappable,
        "pelton:plugin/random": trappable,
    },
    exports: { default: async },
});

pub(crate) use self::exports::pelton::plugin::combine_fn;
pub(crate) use self::exports::pelton::plugin::do_fn::{self, Input, OpenRequest, Opened, Outcome};
pub(crate) use self::exports::pelton::plugin::plugin as describe;
pub(crate) use self::exports::pelton::plugin::stateful_do_fn;
pub(crate) use self::pelton::plugin::{batch, bytes, data, env, http, log, monotonic_clock, random, spec, state, wall_clock};

/// The version of the contract that this host implements, as it stands in names of interfaces.
pub(crate) const VERSION: &str = "0.1.0";

/// The answer of a call that never waits: its deadline ends it, and nothing that it may import there makes it wait.
pub(crate) fn ready<T>(call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(wasmtime::Error::msg("it waits where nothing may")),
    }
}

/// The version of the contract that a component was built against, if it is not this one, by the names of its imports and exports.
pub(crate) fn other_version<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let versions = names.into_iter().filter_map(|name| name.strip_prefix("pelton:plugin/")?.split_once('@').map(|(_, version)| version));
    versions.filter(|version| *version != VERSION).max_by_key(|version| numbers(version))
}

/// Whether a version of the contract came after this host's.
pub(crate) fn is_newer(version: &str) -> bool {
    numbers(version) > numbers(VERSION)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_other_version_is_the_one_that_is_needed() {
        let other = |names: &[&'static str]| other_version(names.iter().copied());
        assert_eq!(other(&["pelton:plugin/log@0.1.0", "pelton:plugin/do-fn@0.1.0", "wasi:io/streams@0.2.0"]), None);
        assert_eq!(other(&["pelton:plugin/log@0.1.0", "pelton:plugin/do-fn@0.2.0", "pelton:plugin/spec@0.10.0"]), Some("0.10.0"));
        assert!(is_newer("0.2.0") && is_newer("0.1.1") && is_newer("1.0.0") && !is_newer("0.0.9") && !is_newer(VERSION));
    }

    /// The version stands in three places that cannot name one another.
    #[test]
    fn the_version_is_that_of_the_interfaces() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        for entry in std::fs::read_dir(folder).expect("wit/").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("an interface");
            assert!(text.starts_with(&format!("package pelton:plugin@{VERSION};")), "{}", entry.path().display());
        }
    }
}

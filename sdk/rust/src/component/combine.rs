//! The export `combine-fn`.

use super::bindings::exports::pelton::plugin::combine_fn as contract;
use super::stateful::{bytes_in, bytes_out};
use super::{Component, INSTANCE, Served, columns_out, errors_out, failure, input_in, not_open, open_request, opened_out, update_out};
use crate::combine::Instance;
use crate::transform::{Opener, Plugin, wrong_role};

impl<P: Plugin> contract::Guest for Component<P> {
    fn open(request: contract::OpenRequest) -> Result<contract::Opened, contract::Failure> {
        let request = open_request(request);
        let Opener::Combine(open) = P::opener(&request.transform).map_err(failure)? else {
            return Err(failure(wrong_role(&request.transform)));
        };
        let (opened, instance) = open(&request).map_err(failure)?;
        INSTANCE.set(Some(Served::Combine(instance)));
        Ok(opened_out(opened))
    }

    fn create() -> Result<Vec<u8>, contract::Failure> {
        with(|instance| instance.create())
    }

    fn add(rows: contract::Input, groups: Vec<u8>, accumulators: contract::BytesColumn) -> Result<contract::Added, contract::Failure> {
        with(|instance| {
            let added = instance.add(&input_in(rows), &groups, &bytes_in(accumulators));
            contract::Added {
                accumulators: bytes_out(added.accumulators),
                errors: errors_out(added.errors),
                metrics: added.metrics.into_iter().map(update_out).collect(),
            }
        })
    }

    fn merge(accumulators: contract::BytesColumn, groups: Vec<u8>, count: u32) -> Result<contract::BytesColumn, contract::Failure> {
        with(|instance| bytes_out(instance.merge(&bytes_in(accumulators), &groups, count)))
    }

    fn extract(accumulators: contract::BytesColumn) -> Result<contract::Columns, contract::Failure> {
        with(|instance| columns_out(instance.extract(&bytes_in(accumulators))))
    }

    fn migrate(version: u32, accumulators: contract::BytesColumn) -> Result<contract::BytesColumn, contract::Failure> {
        with(|instance| instance.migrate(version, &bytes_in(accumulators)))?.map(bytes_out).map_err(failure)
    }

    fn close() {
        INSTANCE.set(None);
    }
}

fn with<T>(call: impl FnOnce(&dyn Instance) -> T) -> Result<T, contract::Failure> {
    INSTANCE.with_borrow(|instance| match instance {
        Some(Served::Combine(instance)) => Ok(call(&**instance)),
        _ => Err(not_open()),
    })
}

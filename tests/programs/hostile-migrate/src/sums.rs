//! `sums`: the sum of numbers, in accumulators of eight bytes.

use crate::exports::pelton::plugin::combine_fn::*;
use crate::misbehave::{answer, before, trap};
use crate::pelton::plugin::batch::{Needs, OutputSchema};
use crate::pelton::plugin::data::{Columns, Field};
use crate::{BytesColumn, Hostile, column, entries, is, read_i64s, read_u32s, u32s};

impl Guest for Hostile {
    fn open(_: OpenRequest) -> Result<Opened, Failure> {
        if is("open-traps") {
            trap("open");
        }
        let sum = Field { name: "sum".into(), format: "l".into(), nullable: false, children: 0 };
        let outputs = vec![OutputSchema { tag: String::new(), passes: vec![], adds: vec![sum] }];
        Ok(Opened { reads: vec![0], needs: Needs::empty(), outputs, metrics: vec![] })
    }

    fn create() -> Result<Vec<u8>, Failure> {
        Ok(vec![0; 8])
    }

    fn add(rows: Input, groups: Vec<u8>, accumulators: BytesColumn) -> Result<Added, Failure> {
        let mut sums = sums_of(&accumulators);
        let numbers = read_i64s(&rows.columns.buffers[1]);
        numbers.iter().zip(read_u32s(&groups)).for_each(|(number, group)| sums[group as usize] += number);
        let errors = RowErrors { rows: vec![], offsets: vec![], messages: vec![] };
        Ok(Added { accumulators: column_of(&sums), errors, metrics: vec![] })
    }

    fn merge(accumulators: BytesColumn, groups: Vec<u8>, count: u32) -> Result<BytesColumn, Failure> {
        let mut sums = vec![0; count as usize];
        sums_of(&accumulators).iter().zip(read_u32s(&groups)).for_each(|(sum, group)| sums[group as usize] += sum);
        Ok(column_of(&sums))
    }

    fn extract(accumulators: BytesColumn) -> Result<Columns, Failure> {
        let sums = sums_of(&accumulators);
        let rows = sums.len() as u32;
        Ok(Columns { rows, nodes: u32s([rows, 0]), buffers: vec![vec![], sums.into_iter().flat_map(i64::to_le_bytes).collect()] })
    }

    fn migrate(_: u32, accumulators: BytesColumn) -> Result<BytesColumn, Failure> {
        let items: Vec<Vec<u8>> = sums_of(&accumulators).into_iter().map(|sum| sum.to_le_bytes().to_vec()).collect();
        before(items.len(), true).map_err(|message| Failure { message, detail: String::new() })?;
        Ok(answer(&items))
    }

    fn close() {
        if is("close-traps") {
            trap("close");
        }
    }
}

/// An absent one is empty.
fn sums_of(accumulators: &BytesColumn) -> Vec<i64> {
    let sum = |bytes: Option<Vec<u8>>| bytes.map_or(0, |bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    entries(accumulators).into_iter().map(sum).collect()
}

fn column_of(sums: &[i64]) -> BytesColumn {
    column(&sums.iter().map(|sum| sum.to_le_bytes().to_vec()).collect::<Vec<_>>())
}

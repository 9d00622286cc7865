//! `counts`: the number of each row of its key, out of a value; and a map that has an entry a row.

use crate::exports::pelton::plugin::stateful_do_fn::*;
use crate::misbehave::{answer, before, trap};
use crate::pelton::plugin::batch::{Needs, OutputSchema};
use crate::pelton::plugin::data::{Columns, Field};
use crate::pelton::plugin::outputs::Output;
use crate::{Hostile, column, entries, is, read_u32s, u32s, versions};

/// Of a value that a version is poisoned by.
const POISON: i64 = 3;

impl Guest for Hostile {
    fn open(request: KeyedOpenRequest) -> Result<Opened, Failure> {
        if is("open-traps") {
            trap("open");
        }
        let number = |name: &str| Field { name: name.into(), format: "l".into(), nullable: false, children: 0 };
        let outputs = vec![OutputSchema { tag: String::new(), passes: request.key, adds: vec![number("version"), number("count")] }];
        Ok(Opened { reads: vec![], needs: Needs::empty(), outputs, metrics: vec![] })
    }

    fn process(rows: KeyedInput) -> Result<KeyedOutcome, Failure> {
        if is("process-traps") {
            trap("process");
        }
        let starts = read_u32s(&rows.groups.row_starts);
        let groups = starts.len() - 1;
        let before = entries(&rows.values[0].values);
        let (mut numbers, mut after, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..groups {
            let mut count = before[group].as_deref().map_or(0, number_of);
            for _ in starts[group]..starts[group + 1] {
                count += 1;
                numbers.push(count);
                keys.push((group as u32, bytes_of(count)));
            }
            after.push(bytes_of(count));
        }
        let n = numbers.len() as u32;
        let of_version = i64::from(versions().0).to_le_bytes().repeat(n as usize);
        let columns = Columns { rows: n, nodes: u32s([n, 0, n, 0]), buffers: vec![vec![], of_version, vec![], numbers.iter().copied().flat_map(i64::to_le_bytes).collect()] };
        let seen = column(&keys.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>());
        Ok(KeyedOutcome {
            outputs: vec![Output { port: 0, columns, origin: Some(u32s(0..n)), event_times: None }],
            errors: RowErrors { rows: vec![], offsets: vec![], messages: vec![] },
            metrics: vec![],
            values: vec![ValueWrites { state: 0, groups: u32s(0..groups as u32), values: column(&after), expires: vec![] }],
            lists: vec![],
            maps: vec![MapWrites { state: 1, cleared: vec![], groups: u32s(keys.iter().map(|(group, _)| *group)), keys: seen.clone(), values: seen, expires: vec![] }],
            timers: vec![],
        })
    }

    fn migrate(state: String, _: u32, items: StateItems) -> Result<StateItems, Failure> {
        let values: Vec<Vec<u8>> = entries(&items.values).into_iter().map(Option::unwrap_or_default).collect();
        let keys: Vec<Vec<u8>> = entries(&items.keys).into_iter().map(Option::unwrap_or_default).collect();
        // These do well by the values.
        match (state.as_str(), crate::way().as_str()) {
            ("seen", "migrate-keys-few") => return Ok(StateItems { keys: column(&keys[1..]), values: column(&values) }),
            ("seen", "migrate-keys-absent") => {
                let absent = vec![0; keys.len().div_ceil(8)];
                return Ok(StateItems { keys: crate::BytesColumn { validity: absent, offsets: u32s(vec![0; keys.len() + 1]), data: vec![] }, values: column(&values) });
            }
            ("count", "migrate-keys-unasked") => return Ok(StateItems { keys: column(&values), values: column(&values) }),
            _ => {}
        }
        let poison = state == "count" && values.iter().any(|value| number_of(value) >= POISON);
        before(values.len(), poison).map_err(|message| Failure { message, detail: String::new() })?;
        Ok(StateItems { keys: items.keys, values: answer(&values) })
    }

    fn close() {
        if is("close-traps") {
            trap("close");
        }
    }
}

fn number_of(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn bytes_of(number: i64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

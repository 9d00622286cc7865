//! Partition: sends each row to the output that an expression names.

use crate::failure::Failure;
use crate::operator::{Operator, Out, Port, Refusals};
use arrow::array::{Array, AsArray, UInt32Array};
use async_trait::async_trait;
use pelton_core::{Batch, RowError};
use pelton_expr::Expression;

/// The operator.
pub struct Partition {
    /// A string expression: the name of an output.
    pub by: Expression,
    /// Names and ports of the outputs.
    pub outputs: Vec<(String, Port)>,
    /// For rows of another name or none; without it they are refused.
    pub unknown: Option<Port>,
    /// What becomes of refused rows.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for Partition {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let evaluated = self.by.evaluate(&batch.rows);
        let mut errors = evaluated.errors;
        let names = evaluated.array.as_string::<i32>();
        let mut failed = errors.iter().map(|error| error.row).collect::<Vec<_>>().into_iter().peekable();
        let ports = self.outputs.iter().map(|(_, port)| *port).chain(self.unknown).max().unwrap_or(0) + 1;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); ports];
        for row in 0..batch.num_rows() as u32 {
            if failed.next_if_eq(&row).is_some() {
                continue;
            }
            let name = names.is_valid(row as usize).then(|| names.value(row as usize));
            let port = self.outputs.iter().find(|(output, _)| Some(output.as_str()) == name).map(|(_, port)| *port).or(self.unknown);
            match port {
                Some(port) => rows[port].push(row),
                None => errors.push(RowError {
                    row,
                    message: format!(
                        "{} is none of the outputs {}",
                        name.map_or("null".into(), |name| format!("`{name}`")),
                        self.outputs.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    ),
                    stack: String::new(),
                }),
            }
        }
        errors.sort_by_key(|error| error.row);
        self.refusals.refuse(&batch, &errors, out)?;
        out.account.led += (batch.num_rows() - errors.len()) as u64;
        for (port, rows) in rows.into_iter().enumerate() {
            if !rows.is_empty() {
                out.rows(port, batch.take(&UInt32Array::from(rows)));
            }
        }
        Ok(())
    }
}

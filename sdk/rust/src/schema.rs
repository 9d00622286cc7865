//! Flattened schemas: finding a column in one, and saying what is wrong when it is not there or of another type.

use std::fmt;

use crate::wire::Field;

/// A column that a row type wants.
#[derive(Clone)]
pub struct Want {
    pub name: &'static str,
    /// The type in words, for messages.
    pub wanted: String,
    /// Arrow formats that are accepted; empty for nested types.
    pub formats: Vec<String>,
    /// Whether the subtree that starts at a field number will do.
    pub check: fn(&[Field], usize) -> Result<(), Mismatch>,
}

/// Why a column will not do: what is wanted and what is there, at `path` below the column.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub path: String,
    pub wanted: String,
    pub found: String,
}

impl Mismatch {
    pub(crate) fn below(mut self, name: &str) -> Mismatch {
        self.path = if self.path.is_empty() { name.to_owned() } else { format!("{name}.{}", self.path) };
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "column `{}` is {}, but {} is wanted", self.path, self.found, self.wanted)
    }
}

/// The field number after the subtree that starts at `at`.
pub(crate) fn after(fields: &[Field], at: usize) -> usize {
    let children = fields.get(at).map_or(0, |field| field.children);
    (0..children).fold(at + 1, |next, _| after(fields, next))
}

/// Field numbers of the top-level columns.
pub(crate) fn roots(fields: &[Field]) -> Vec<usize> {
    let mut roots = vec![];
    let mut at = 0;
    while at < fields.len() {
        roots.push(at);
        at = after(fields, at);
    }
    roots
}

/// Finds each wanted column and answers its top-level number, or a sentence naming all that is wrong.
pub(crate) fn resolve(wants: &[Want], fields: &[Field]) -> Result<Vec<u32>, String> {
    let roots = roots(fields);
    let mut reads = vec![];
    let mut problems = vec![];
    for want in wants {
        match roots.iter().position(|root| fields[*root].name == want.name) {
            None => problems.push(missing(want, fields, &roots)),
            Some(number) => match (want.check)(fields, roots[number]) {
                Ok(()) => reads.push(number as u32),
                Err(mismatch) => problems.push(mismatch.below(want.name).to_string()),
            },
        }
    }
    if problems.is_empty() { Ok(reads) } else { Err(problems.join("; ")) }
}

fn missing(want: &Want, fields: &[Field], roots: &[usize]) -> String {
    let names = roots.iter().map(|root| fields[*root].name.as_str());
    let near = nearest(want.name, names);
    let hint = match near.is_empty() {
        true => "the input has no columns".to_owned(),
        false => format!("the nearest are {}", near.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    format!("column `{}` ({}) is missing; {hint}", want.name, want.wanted)
}

/// Up to three names, the likest first.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut by_distance: Vec<_> = names.map(|other| (distance(name, other), other)).collect();
    by_distance.sort();
    by_distance.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein's edit distance in bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

/// An Arrow format in words.
pub(crate) fn described(format: &str) -> String {
    let words = match format {
        "n" => "null",
        "b" => "a boolean",
        "c" => "int8",
        "s" => "int16",
        "i" => "int32",
        "l" => "int64",
        "C" => "uint8",
        "S" => "uint16",
        "I" => "uint32",
        "L" => "uint64",
        "f" => "float32",
        "g" => "float64",
        "u" => "a string",
        "z" => "bytes",
        "tdD" => "a date",
        "+l" => "a list",
        "+s" => "a struct",
        "+m" => "a map",
        other if other.starts_with("tsu:") => "a timestamp",
        other if other.starts_with("w:") => "fixed-size bytes",
        other if other.starts_with("+w:") => "a fixed-size list",
        other => return format!("of Arrow format `{}`", other.replacen("d:", "decimal ", 1)),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::want;

    fn field(name: &str, format: &str) -> Field {
        Field { name: name.into(), format: format.into(), nullable: false, children: 0, default: None }
    }

    #[test]
    fn what_is_wrong_with_a_column_is_named() {
        let fields = [field("lines", "u"), field("status", "u"), field("x", "l")];
        let check = |wants: &[Want], expected: Result<Vec<u32>, &str>| {
            assert_eq!(resolve(wants, &fields), expected.map_err(str::to_owned));
        };
        check(&[want::<i64>("x"), want::<&str>("lines")], Ok(vec![2, 0]));
        check(&[want::<&str>("line")], Err("column `line` (a string) is missing; the nearest are `lines`, `x`, `status`"));
        check(&[want::<i64>("status")], Err("column `status` is a string, but an integer is wanted"));
    }
}

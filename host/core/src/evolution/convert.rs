//! One value, converted.

use super::rules::{Conversion, Number, Part};
use super::types::{Field, Width};

/// Stored bytes are not of the type that was stored with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its bytes are not of the type that they were written as")]
pub struct Damaged;

impl Conversion {
    /// Appends the converted value.
    pub fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        let mut rest = value;
        self.step(&mut rest, out)?;
        if rest.is_empty() { Ok(()) } else { Err(Damaged) }
    }

    fn step(&self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        match self {
            Conversion::Same(field) => out.extend_from_slice(skip(field, rest)?),
            Conversion::Number(from, to) => number(*from, *to, rest, out)?,
            Conversion::Present(inner) => {
                out.push(1);
                inner.step(rest, out)?;
            }
            Conversion::Optional(inner) => {
                let there = take(rest, 1)?[0];
                out.push(there);
                match there {
                    0 => {}
                    1 => inner.step(rest, out)?,
                    _ => return Err(Damaged),
                }
            }
            Conversion::List(item) => each(rest, out, &mut |rest, out| item.step(rest, out))?,
            Conversion::Map(key, value) => each(rest, out, &mut |rest, out| {
                key.step(rest, out)?;
                value.step(rest, out)
            })?,
            Conversion::Struct { read, write } => fields(read, write, rest, out)?,
        }
        Ok(())
    }
}

fn fields(read: &[Result<Conversion, Field>], write: &[Part], rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
    let (mut converted, mut ends) = (Vec::new(), vec![0]);
    for field in read {
        match field {
            Ok(conversion) => conversion.step(rest, &mut converted)?,
            Err(unwanted) => drop(skip(unwanted, rest)?),
        }
        ends.push(converted.len());
    }
    for part in write {
        match part {
            Part::Stored(number) => out.extend_from_slice(&converted[ends[*number]..ends[*number + 1]]),
            Part::Fixed(bytes) => out.extend_from_slice(bytes),
        }
    }
    Ok(())
}

type Step<'s> = dyn FnMut(&mut &[u8], &mut Vec<u8>) -> Result<(), Damaged> + 's;

/// A count, and what it counts.
fn each(rest: &mut &[u8], out: &mut Vec<u8>, step: &mut Step<'_>) -> Result<(), Damaged> {
    let count = count(rest)?;
    out.extend_from_slice(&count.to_le_bytes());
    for _ in 0..count {
        let before = rest.len();
        step(rest, out)?;
        // Things of no bytes, and more of them than there are bytes, are damage: a count of billions would keep us busy for long.
        if rest.len() == before && count as usize > before {
            return Err(Damaged);
        }
    }
    Ok(())
}

fn number(from: Number, to: Number, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
    match (from, to) {
        (Number::Int { bytes, signed }, _) => {
            let stored = take(rest, bytes as usize)?;
            let negative = signed && stored.last().is_some_and(|last| last & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..stored.len()].copy_from_slice(stored);
            let value = i64::from_le_bytes(wide);
            match to {
                Number::Int { bytes, .. } => out.extend_from_slice(&wide[..bytes as usize]),
                // At most 4 bytes become a double, and at most 2 a float: both are exact.
                Number::Float { bytes: 4 } => out.extend_from_slice(&(value as f32).to_le_bytes()),
                Number::Float { .. } => out.extend_from_slice(&(value as f64).to_le_bytes()),
            }
        }
        (Number::Float { .. }, _) => {
            let stored = take(rest, 4)?;
            let value = f32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]);
            out.extend_from_slice(&f64::from(value).to_le_bytes());
        }
    }
    Ok(())
}

/// The bytes of a value.
fn skip<'b>(field: &Field, rest: &mut &'b [u8]) -> Result<&'b [u8], Damaged> {
    let all = *rest;
    if !field.nullable || take(rest, 1)?[0] == 1 {
        skip_present(field, rest)?;
    } else if all[0] != 0 {
        return Err(Damaged);
    }
    Ok(&all[..all.len() - rest.len()])
}

fn skip_present(field: &Field, rest: &mut &[u8]) -> Result<(), Damaged> {
    match field.width().ok_or(Damaged)? {
        Width::Fixed(bytes) => drop(take(rest, bytes)?),
        Width::Counted => {
            let bytes = count(rest)? as usize;
            take(rest, bytes)?;
        }
        Width::Nested if field.format == "+s" => {
            for field in &field.children {
                skip(field, rest)?;
            }
        }
        Width::Nested => {
            // A list's items; a map's entries, which are never absent.
            let item = &field.children[0];
            each(rest, &mut Vec::new(), &mut |rest, _| skip(item, rest).map(drop))?;
        }
    }
    Ok(())
}

fn count(rest: &mut &[u8]) -> Result<u32, Damaged> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn take<'b>(rest: &mut &'b [u8], bytes: usize) -> Result<&'b [u8], Damaged> {
    let (head, after) = rest.split_at_checked(bytes).ok_or(Damaged)?;
    *rest = after;
    Ok(head)
}

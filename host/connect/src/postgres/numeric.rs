//! Decimals in PostgreSQL's binary form: digits of base 10,000, where the first stands, the sign, and how many decimal digits to show.

use crate::format::text::write_decimal;

/// Digits before and after the point that a column `numeric(precision, scale)` holds.
pub type Bounds = Option<(usize, usize)>;

/// Appends a decimal; PostgreSQL would round digits beyond the column's scale in silence, so that they are refused.
pub fn write(value: i128, scale: i8, bounds: Bounds, out: &mut Vec<u8>) -> Result<(), String> {
    let mut written = Vec::with_capacity(48);
    write_decimal(value, scale, &mut written);
    let text = String::from_utf8_lossy(&written);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, &*text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    if let Some((before, after)) = bounds
        && (whole.len() > before || fraction.trim_end_matches('0').len() > after)
    {
        return Err(format!("{text} does not fit numeric({},{after})", before + after));
    }
    let shown = bounds.map_or(fraction.len(), |(_, after)| after);
    let fraction = fraction.trim_end_matches('0');
    let groups = groups(whole, fraction);
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
    let kept = if leading == groups.len() { &[] } else { &groups[leading..groups.len() - trailing] };
    let weight = whole.len().div_ceil(4) as i16 - 1 - leading as i16;
    let sign: u16 = if negative && !kept.is_empty() { 0x4000 } else { 0 };
    out.extend_from_slice(&(8 + 2 * kept.len() as i32).to_be_bytes());
    out.extend_from_slice(&(kept.len() as i16).to_be_bytes());
    out.extend_from_slice(&if kept.is_empty() { 0 } else { weight }.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&(shown as u16).to_be_bytes());
    kept.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    Ok(())
}

/// Four digits each, from the point to both sides.
fn groups(whole: &str, fraction: &str) -> Vec<u16> {
    let head = (4 - whole.len() % 4) % 4;
    let tail = (4 - fraction.len() % 4) % 4;
    let digits = std::iter::repeat_n(b'0', head).chain(whole.bytes()).chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', tail));
    let digits: Vec<u8> = digits.collect();
    digits.chunks(4).map(|group| group.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digits, weight, sign and scale, as the server's documentation has them.
    fn check(value: i128, scale: i8, bounds: Bounds, expected: Option<(&[i16], i16, i16, i16)>) {
        let mut out = Vec::new();
        let result = write(value, scale, bounds, &mut out);
        let Some((digits, weight, sign, shown)) = expected else { return assert!(result.is_err(), "{value}e-{scale}") };
        result.unwrap();
        let numbers: Vec<i16> = out[4..].chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(numbers[..4], [digits.len() as i16, weight, sign, shown], "{value}e-{scale}");
        assert_eq!(&numbers[4..], digits, "{value}e-{scale}");
        assert_eq!(out.len() as i32, 4 + i32::from_be_bytes(out[..4].try_into().unwrap()));
    }

    #[test]
    fn groups_begin_at_the_point() {
        check(0, 2, None, Some((&[], 0, 0, 2)));
        check(1_230, 2, None, Some((&[12, 3_000], 0, 0, 2)));
        check(-5, 2, None, Some((&[500], -1, 0x4000, 2)));
        check(5, 10, None, Some((&[500], -3, 0, 10)));
        check(123_450_000, 0, None, Some((&[1, 2_345], 2, 0, 0)));
        check(1_230, 2, Some((2, 1)), Some((&[12, 3_000], 0, 0, 1)));
        check(1_234, 2, Some((2, 1)), None);
        check(12_300, 2, Some((2, 1)), None);
    }
}

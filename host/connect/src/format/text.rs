//! Single values as text: dates, decimals, base64. Instants are in `pelton_core::time`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pelton_core::time::{civil_from_days, days_from_civil};

/// Days since the epoch of `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        bytes.get(range)?.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    if !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day beyond its month would come back as another date.
    (civil_from_days(days) == (year, month, day)).then_some(days as i32)
}

/// Appends `YYYY-MM-DD`, with a sign and six digits beyond year 9999.
pub fn write_date(days: i64, out: &mut Vec<u8>) {
    use std::io::Write;
    let (year, month, day) = civil_from_days(days);
    let written = if (0..=9999).contains(&year) {
        write!(out, "{year:04}-{month:02}-{day:02}")
    } else {
        write!(out, "{}{:06}-{month:02}-{day:02}", if year < 0 { '-' } else { '+' }, year.abs())
    };
    written.expect("a Vec takes what is written to it");
}

/// A decimal number, exactly; `None` if it has more digits than the type or an exponent beyond reason.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0i128;
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = byte.is_ascii_digit().then(|| i128::from(byte - b'0'))?;
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    let shift = i32::from(scale).checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    for _ in 0..shift.min(200) {
        if value == 0 {
            break;
        }
        value = value.checked_mul(10)?;
    }
    for _ in shift.max(-200)..0 {
        // Digits beyond the scale must be zeros: nothing is rounded in silence.
        if value % 10 != 0 {
            return None;
        }
        value /= 10;
    }
    (value < 10i128.pow(u32::from(precision))).then_some(if negative { -value } else { value })
}

/// Appends a decimal as a plain number.
pub fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    let scale_digits = usize::from(scale.unsigned_abs());
    if scale <= 0 {
        out.extend_from_slice(digits.as_bytes());
        if value != 0 {
            out.extend(std::iter::repeat_n(b'0', scale_digits));
        }
        return;
    }
    let padded = format!("{digits:0>width$}", width = scale_digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale_digits);
    out.extend_from_slice(whole.as_bytes());
    out.push(b'.');
    out.extend_from_slice(fraction.as_bytes());
}

/// Bytes in JSON, CSV and text are base64 with padding (RFC 4648, section 4).
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Appends base64.
pub fn write_base64(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(STANDARD.encode(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, days) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2024-02-29", Some(19_782)),
            ("2023-02-29", None),
            ("2023-2-01", None),
            ("", None),
            ("2023-00-01", None),
        ] {
            assert_eq!(parse_date(text), days, "{text}");
        }
        let mut out = Vec::new();
        write_date(19_782, &mut out);
        assert_eq!(out, b"2024-02-29");
    }

    #[test]
    fn decimals() {
        let cases = [
            ("12.30", Some(1_230)),
            ("-0.05", Some(-5)),
            ("1e1", Some(1_000)),
            ("1.234", None),
            ("1.230", Some(123)),
            ("99999999.99", None),
            ("", None),
            (".", None),
            ("1x", None),
            ("0e999999999", Some(0)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_decimal(text, 8, 2), expected, "{text}");
        }
        for (value, scale, expected) in [(1_230, 2, "12.30"), (-5, 2, "-0.05"), (7, 0, "7"), (7, -2, "700")] {
            let mut out = Vec::new();
            write_decimal(value, scale, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}

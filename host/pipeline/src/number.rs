//! Numbers as PyYAML reads them (YAML 1.1): underscores, `0x`, `0b`, octal with a leading zero; a float has a point.

use serde_json::Number;

/// A number as YAML 1.1 writes it, sexagesimal ones left out. `Some(None)`: a number that does not fit.
pub(crate) fn number(text: &str) -> Option<Option<Number>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(None);
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let radix = [("0b", 2), ("0x", 16)].into_iter().find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, radix)));
    let (body, radix) = radix.unwrap_or_else(|| match digits.strip_prefix('0') {
        Some(rest) if !rest.is_empty() && rest.chars().all(|c| c.is_digit(8)) => (rest, 8),
        _ => (digits.as_str(), 10),
    });
    let leading_zero = radix == 10 && body.len() > 1 && body.starts_with('0');
    if !body.is_empty() && body.chars().all(|c| c.is_digit(radix)) && !leading_zero {
        return Some(i128::from_str_radix(body, radix).ok().and_then(|value| integer(if negative { -value } else { value })));
    }
    let float = is_float(&digits).then(|| digits.parse::<f64>().ok()).flatten()?;
    Some(Number::from_f64(if negative { -float } else { float }))
}

fn integer(value: i128) -> Option<Number> {
    i64::try_from(value).map(Number::from).ok().or_else(|| u64::try_from(value).map(Number::from).ok())
}

/// `1.`, `.5`, `1.5e+3`; PyYAML wants the point, and a sign in the exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let Some((whole, fraction)) = mantissa.split_once('.') else { return false };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let signed = |text: &str| text.strip_prefix(['-', '+']).is_some_and(|rest| !rest.is_empty() && digits(rest));
    digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0 && exponent.is_none_or(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = number(text).map(|number| number.map_or("out of range".to_string(), |number| number.to_string()));
        assert_eq!(found.as_deref().unwrap_or("a string"), expected, "{text}");
    }

    #[test]
    fn numbers_are_read_as_by_pyyaml() {
        check("12", "12");
        check("-12", "-12");
        check("1_000", "1000");
        check("0755", "493");
        check("0x1F", "31");
        check("0b101", "5");
        check("08", "a string");
        check("1.5", "1.5");
        check("1.", "1.0");
        check(".5", "0.5");
        check("1.5e+3", "1500.0");
        check("1.5e3", "a string");
        check("1e5", "a string");
        check("12:30", "a string");
        check("2026-01-01", "a string");
        check(".", "a string");
        check("-", "a string");
        check("1.2.3", "a string");
        check("18446744073709551615", "18446744073709551615");
        check("18446744073709551616", "out of range");
        check(".nan", "out of range");
        check("-.inf", "out of range");
    }
}

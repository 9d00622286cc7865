//! Numbers of bytes as limits and grants have them: `1048576`, `64KiB`, `1 GiB`.

/// Whole numbers with a binary unit or none; `None`: it is something else, or too large.
pub fn parse(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_are_binary_and_whole() {
        for (text, want) in [
            ("7", Some(7)),
            ("7B", Some(7)),
            ("64 KiB", Some(65_536)),
            ("3MiB", Some(3 << 20)),
            ("1GiB", Some(1 << 30)),
            ("1.5MiB", None),
            ("-1", None),
            ("MiB", None),
            ("1KB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(super::parse(text), want, "{text}");
        }
    }
}

//! Numbers in as few bytes as they need: LEB128 of at most 10 bytes, the lowest seven bits first. Signed ones are zigzag, so that small ones
//! of either sign are short. They lie in checkpoints: they never change.

/// Appends a number.
pub fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front; `None`: it is cut off, or no number of 64 bits.
pub fn read(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends a signed number.
pub fn write_signed(out: &mut Vec<u8>, value: i64) {
    write(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes a signed number from the front.
pub fn read_signed(rest: &mut &[u8]) -> Option<i64> {
    let value = read(rest)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Takes so many bytes from the front.
pub fn read_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        for (value, bytes) in [(0, &[0u8][..]), (127, &[127]), (128, &[128, 1]), (300, &[0xac, 2])] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(out, bytes, "{value}");
        }
        for (value, byte) in [(0, 0), (-1, 1), (1, 2), (-2, 3)] {
            let mut out = Vec::new();
            write_signed(&mut out, value);
            assert_eq!(out, [byte], "{value}");
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<i64>(), shift in 0u32..64, more in proptest::collection::vec(any::<u8>(), 0..3)) {
            let value = value >> shift;
            let mut out = Vec::new();
            write_signed(&mut out, value);
            let cut = &out[..out.len() - 1];
            prop_assert_eq!(read_signed(&mut &*cut), None);
            out.extend_from_slice(&more);
            let mut rest = out.as_slice();
            prop_assert_eq!(read_signed(&mut rest), Some(value));
            prop_assert_eq!(rest, more.as_slice());
        }

        /// Whatever the bytes are, there is an answer.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..14)) {
            let mut rest = bytes.as_slice();
            if let Some(value) = read(&mut rest) {
                let mut out = Vec::new();
                write(&mut out, value);
                prop_assert!(out.len() <= bytes.len() - rest.len());
            }
        }
    }
}

//! Custom sections of a component: facts about it that travel inside, and so under its digest and its signatures.
//!
//! ```text
//! 0x00  size (LEB128)  length of the name (LEB128)  name  bytes to the end
//! ```
//! stands anywhere at the top of a component, and engines pass over it (Component Model, Binary.md). The bill of materials and the
//! provenance are JSON, added at the end by `pelton plugin build`.

/// Section of the bill of materials, CycloneDX in JSON.
pub const SBOM: &str = "pelton:sbom";
/// Section of the provenance.
pub const PROVENANCE: &str = "pelton:provenance";

/// The preamble of a component: magic and version.
const PREAMBLE: usize = 8;
const CUSTOM: u8 = 0;

/// Adds a section at the end.
pub fn append(component: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut body = vec![];
    write_length(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(bytes);
    component.push(CUSTOM);
    write_length(component, body.len());
    component.extend_from_slice(&body);
}

/// The first section of a name; none where the bytes are no component.
pub fn find<'c>(component: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let mut rest = component.get(PREAMBLE..)?;
    while let Some((id, after)) = rest.split_first() {
        let (size, after) = read_length(after)?;
        let (body, after) = after.split_at_checked(size)?;
        rest = after;
        if *id != CUSTOM {
            continue;
        }
        let (length, body) = read_length(body)?;
        let (found, bytes) = body.split_at_checked(length)?;
        if found == name.as_bytes() {
            return Some(bytes);
        }
    }
    None
}

fn write_length(to: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return to.push(byte);
        }
        to.push(byte | 0x80);
    }
}

fn read_length(from: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0_u64;
    for (place, byte) in from.iter().enumerate().take(5) {
        length |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(length).ok()?, &from[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_from_behind_others() {
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        let long = vec![7; 300];
        append(&mut component, "other", &long);
        component.extend_from_slice(&[4, 2, 0xff, 0xff]);
        append(&mut component, SBOM, b"{}");
        append(&mut component, PROVENANCE, &long);
        assert_eq!(find(&component, SBOM), Some(&b"{}"[..]));
        assert_eq!(find(&component, PROVENANCE), Some(&long[..]));
        assert_eq!(find(&component, "absent"), None);
        for length in 0..component.len() {
            // Cut anywhere: nothing or the whole section, and no panic.
            assert!(find(&component[..length], SBOM).is_none_or(|bytes| bytes == b"{}"));
        }
        assert_eq!(find(b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff", SBOM), None);
    }
}

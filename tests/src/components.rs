//! Components that tests change before they use them.

use crate::pelton::root;

/// The plugin `parse-log` as if its crate had this version, of five characters.
pub fn parse_log(version: &str) -> Vec<u8> {
    let path = root().join("tests/.cache/components/parse-log.wasm");
    let mut bytes = std::fs::read(path).expect("run `cargo xtask setup` first");
    let text = b"0.1.0";
    let own = |at: usize| &bytes[at..at + text.len()] == text && bytes[at - 1] != b'@' && bytes[at - 1] != b'"';
    let places: Vec<usize> = (1..bytes.len() - text.len()).filter(|at| own(*at)).collect();
    assert_eq!(places.len(), 1, "the descriptor's version stands once in the data of the component");
    bytes[places[0]..places[0] + text.len()].copy_from_slice(version.as_bytes());
    bytes
}

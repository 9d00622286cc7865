//! Components that take too much to compile: the process that compiles them ends, the one that asked goes on and says which limit it was.

use super::pipeline;
use pelton_tests::pelton::{Said, pelton};
use std::path::Path;

fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [vec![id], length(body.len()), body.to_vec()].concat()
}

/// A component around one core module, of functions that add to their argument very often.
fn heavy(functions: usize, steps: usize) -> Vec<u8> {
    // (func (param i32) (result i32)): local.get 0, then i32.const k, i32.add, local.tee 0.
    let step = |step: usize| [vec![0x41, (step % 64) as u8], vec![0x6a, 0x22, 0]].concat();
    let body = [vec![0, 0x20, 0], (0..steps).flat_map(step).collect(), vec![0x0b]].concat();
    let code = [length(body.len()), body].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(3, &[length(functions), vec![0; functions]].concat()),
        section(10, &[length(functions), code.repeat(functions)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &module)].concat()
}

fn lint(folder: &Path, component: &[u8], setting: (&str, &str)) -> Said {
    std::fs::write(folder.join("heavy.wasm"), component).unwrap();
    let text = "pipeline:\n  type: chain\n  transforms:\n    - {type: Create, config: {elements: [{line: x}]}}\n    - {type: P, config: {}}\n    - {type: WriteToJson, config: {path: '{dir}/out'}}\nproviders:\n  - {type: wasm, config: {plugin: heavy.wasm}, transforms: {P: p}}\n";
    let path = pipeline(folder, text);
    let mut command = pelton(&["lint", &path]);
    command.env("XDG_CACHE_HOME", folder.join("cache")).env(setting.0, setting.1);
    command.output().unwrap().into()
}

#[test]
fn a_component_that_takes_too_much_to_compile_is_refused_by_the_limit_that_it_reached() {
    let folder = tempfile::tempdir().unwrap();
    let small = lint(folder.path(), &heavy(2, 10), ("PELTON_COMPILE_TIME", "120s"));
    // It compiles, and is no plugin.
    assert!(small.code == 2 && small.err.contains("exports nothing"), "{small:?}");
    let large = heavy(400, 20_000);
    let slow = lint(folder.path(), &large, ("PELTON_COMPILE_TIME", "200ms"));
    assert!(slow.code == 2 && slow.err.contains("heavy.wasm") && slow.err.contains("PELTON_COMPILE_TIME"), "{slow:?}");
    let hungry = lint(folder.path(), &large, ("PELTON_COMPILE_MEMORY", "150MiB"));
    assert!(hungry.code == 2 && hungry.err.contains("150 MiB") && hungry.err.contains("PELTON_COMPILE_MEMORY"), "{hungry:?}");
    let wrong = lint(folder.path(), &large, ("PELTON_COMPILE_MEMORY", "much"));
    assert!(wrong.code == 2 && wrong.err.contains("PELTON_COMPILE_MEMORY=much"), "{wrong:?}");
}

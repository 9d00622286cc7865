//! Components that were built against released versions of the contract still load, bind and give the rows that they gave.

use super::root;
use pelton_tests::pelton::run;
use std::process::Command;

#[test]
fn components_of_released_contracts_still_work() {
    let mut versions = 0;
    for entry in std::fs::read_dir(root().join("tests/corpus")).unwrap().flatten() {
        let folder = entry.path();
        if !folder.is_dir() {
            continue;
        }
        // The bytes are those that were released.
        let sums = Command::new("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&folder).status().unwrap();
        assert!(sums.success(), "components in {} were changed", folder.display());
        let listed = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let pipeline = std::fs::read_to_string(folder.join("pipeline.yaml")).unwrap();
        for file in std::fs::read_dir(&folder).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(".wasm") {
                assert!(listed.contains(&name) && pipeline.contains(&format!("plugin: {name}")), "{name} is tested by nothing");
                assert!(file.metadata().unwrap().len() < 1 << 20, "{name} has more than 1 MiB");
            }
        }
        let said = run(&["test", folder.join("pipeline.yaml").to_str().unwrap()]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains(", 0 failed"), "{}", said.out);
        versions += 1;
    }
    assert!(versions >= 1, "there is no released contract");
}

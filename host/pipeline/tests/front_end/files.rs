//! The files of `tests/cases-lint`: what each must be told, and that nothing else is said.

use std::path::Path;

use crate::load_with;

#[test]
fn bad_files_are_told_what_is_wrong() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases-lint");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of bad files") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).expect("a bad file");
        let expected = std::fs::read_to_string(path.with_extension("expected")).expect("what it is told");
        let findings = load_with(&text, &[]).err().unwrap_or_else(|| panic!("nothing found in {}", path.display()));
        let shown = pelton_pipeline::render(&findings);
        assert_eq!(findings.len(), expected.lines().count(), "{}\n{shown}", path.display());
        for (finding, expected) in findings.iter().zip(expected.lines()) {
            let (place, fragment) = expected.split_once(' ').expect("a place and a message");
            assert_eq!(format!("{}:{}", finding.line, finding.column), place, "{}\n{shown}", path.display());
            assert!(finding.message.contains(fragment), "{}: {fragment}\n{shown}", path.display());
        }
    }
    assert!(count >= 9, "only {count} bad files");
}

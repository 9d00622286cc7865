//! `tests/cases-run`: pipelines that check themselves with AssertEqual, and some that must fail.

use pelton_tests::pelton::{root, run};

#[test]
fn pipelines_check_themselves_at_any_parallelism() {
    let mut names: Vec<_> = std::fs::read_dir(root().join("tests/cases-run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    names.sort();
    assert!(names.len() > 10, "{names:?}");
    let mut wrong = Vec::new();
    for path in names {
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or("0\n".into());
        let (code, parts) = expected.split_once('\n').unwrap();
        for parallelism in ["1", "2", "4"] {
            let said = run(&["run", path.to_str().unwrap(), "--quiet", "--parallelism", parallelism]);
            let missing: Vec<&str> = parts.lines().filter(|part| !said.err.contains(part)).collect();
            if said.code.to_string() != code || !missing.is_empty() {
                wrong.push(format!(
                    "{} at parallelism {parallelism}: code {}, without {missing:?}\n{}",
                    path.display(),
                    said.code,
                    said.err
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

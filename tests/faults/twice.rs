//! A pipeline that is started twice by mistake, and one that is taken over on purpose.

use crate::job::check_stop;
use pelton_tests::life::{Life, newest_manifest};
use pelton_tests::pelton::{run, wait_for};

const PATIENCE: u64 = 180;

#[test]
fn a_second_start_is_refused_and_the_first_can_still_be_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("pipeline.yaml"), folder.path().join("state"));
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: GenerateEvents, config: {{kind: iot, rate: 500}}}}\n    - {{type: WriteToJson, config: {{path: '{}/rows'}}}}\noptions: {{pelton: {{name: twice, checkpoint: {{interval: 100ms}}}}}}\n",
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let (file, place) = (file.to_str().unwrap(), state.to_str().unwrap());
    let arguments = ["run", file, "--state", place, "--quiet"];
    let start = |more: &[&str], log: &str| Life::start(&[&arguments, more].concat(), &[], &folder.path().join(log));
    let more_checkpoints = |life: &mut Life| {
        let before = newest_manifest(&state);
        wait_for("a checkpoint", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            (newest_manifest(&state) > before).then_some(())
        });
    };
    let mut first = start(&[], "first");
    more_checkpoints(&mut first);
    let said = run(&arguments);
    println!("{}", said.err);
    check_stop(&said, &["state/checkpoints", "is in use by process", "--take-over"]);

    // Nor may anybody make it forget what it has.
    let said = run(&[&arguments[..], &["--restart"]].concat());
    check_stop(&said, &["state/checkpoints", "is in use by process"]);
    more_checkpoints(&mut first);

    let mut second = start(&["--take-over"], "second");
    assert!(!first.wait(PATIENCE).success());
    println!("{}", first.said());
    assert!(first.said().contains("fenced") && !first.said().contains("panicked"), "{}", first.said());
    more_checkpoints(&mut second);
    // The lock of the first is the second's by now.
    more_checkpoints(&mut second);
    check_stop(&run(&arguments), &["is in use by process"]);
    // The first has ended since, and has left the second its socket.
    assert_eq!(run(&["stop", place]).code, 0);
    assert!(second.wait(PATIENCE).success(), "{}", second.said());
}

//! Files of the checkpoint store that are gone, cut off, or have a wrong bit: found, and either not needed or named. With the file back the run goes on.

use crate::job::{Job, check_stop, files};
use pelton_tests::numbers::Numbers;
use std::path::{Path, PathBuf};

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit,
    Cut,
    Gone,
}

impl Damage {
    fn apply(self, path: &Path, numbers: &mut Numbers) {
        let mut bytes = std::fs::read(path).unwrap();
        match self {
            Damage::Bit => {
                let at = numbers.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << numbers.below(8);
            }
            Damage::Cut => bytes.truncate(bytes.len() / 2),
            Damage::Gone => return std::fs::remove_file(path).unwrap(),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// How runs with a damaged file came out.
#[derive(Debug, Default)]
struct Ends {
    went_on: u32,
    refused: u32,
}

/// A pipeline that died in the middle, with manifests, segments, and slots of the register of several epochs.
fn died() -> Job {
    let job = Job::new();
    job.die_at("run.decided", 3);
    job
}

#[test]
fn a_wrong_bit_in_any_file_is_found() {
    let job = died();
    let store = job.path("state/checkpoints");
    let names = files(&store).into_iter().map(|path| path.strip_prefix(&store).unwrap().to_path_buf());
    // The lock says who holds it, to people.
    let names: Vec<PathBuf> = names.filter(|name| name != Path::new("lock")).collect();
    for kind in ["identity", "manifests/", "progress/", "segments/"] {
        assert!(names.iter().any(|name| name.to_string_lossy().starts_with(kind)), "no {kind} among {names:?}");
    }
    let ends = std::sync::Mutex::new(Ends::default());
    std::thread::scope(|scope| {
        for half in 0..2usize {
            let (job, names, ends) = (&job, &names, &ends);
            scope.spawn(move || {
                let mut numbers = Numbers::new(7 + half as u64);
                for name in names.iter().skip(half).step_by(2) {
                    for damage in [Damage::Bit, Damage::Bit] {
                        let went_on = damaged(job, name, damage, &mut numbers);
                        let mut ends = ends.lock().unwrap();
                        *(if went_on { &mut ends.went_on } else { &mut ends.refused }) += 1;
                    }
                }
            });
        }
    });
    println!("files={} {:?}", names.len(), ends.into_inner().unwrap());
}

#[test]
fn a_file_that_is_gone_or_cut_off_is_named() {
    let job = died();
    let store = job.path("state/checkpoints");
    let newest = |folder: &str| {
        let newest = files(&store.join(folder)).pop().unwrap();
        newest.strip_prefix(&store).unwrap().to_path_buf()
    };
    let mut numbers = Numbers::new(1);
    for (name, damage) in [
        (PathBuf::from("identity"), Damage::Gone),
        (PathBuf::from("identity"), Damage::Cut),
        (newest("manifests"), Damage::Gone),
        (newest("manifests"), Damage::Cut),
        (newest("segments"), Damage::Gone),
        (newest("segments"), Damage::Cut),
        (newest("progress"), Damage::Cut),
    ] {
        assert!(!damaged(&job, &name, damage, &mut numbers), "a run goes on after {damage:?} of {}", name.display());
    }
}

/// What nobody sees yet is checked before it is given a name.
#[test]
fn a_wrong_bit_in_a_hidden_output_is_found() {
    let job = died();
    let hidden: Vec<PathBuf> = files(job.folder.path())
        .into_iter()
        .filter(|path| path.parent() == Some(job.folder.path()) && path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .map(|path| path.strip_prefix(job.folder.path()).unwrap().to_path_buf())
        .collect();
    let mut ends = Ends::default();
    for name in &hidden {
        let job = job.copy();
        let whole = std::fs::read(job.path(name.to_str().unwrap())).unwrap();
        if whole.is_empty() {
            continue;
        }
        let mut bytes = whole.clone();
        // What was written after the last decision does not count.
        bytes[whole.len() / 4] ^= 1;
        std::fs::write(job.path(name.to_str().unwrap()), bytes).unwrap();
        let said = job.run(&[]);
        println!("{}: {}\n{}", name.display(), said.code, said.err);
        if said.code == 0 {
            job.check();
            ends.went_on += 1;
            continue;
        }
        check_stop(&said, &[name.to_str().unwrap(), "is damaged"]);
        std::fs::write(job.path(name.to_str().unwrap()), whole).unwrap();
        job.finish();
        ends.refused += 1;
    }
    println!("files={} {ends:?}", hidden.len());
    assert!(ends.refused >= 1, "{ends:?}");
}

/// The newest slot of the register is gone, and with it the decision of what is visible already.
#[test]
fn a_decision_that_is_gone_is_noticed_where_its_output_is_visible() {
    let job = Job::new();
    job.die_at("files.listed", 1);
    let newest = files(&job.path("state/checkpoints/progress")).pop().unwrap();
    std::fs::remove_file(newest).unwrap();
    check_stop(&job.run(&[]), &["has become visible", "a file of the store is missing", "progress"]);
}

/// Runs with a damaged file: exact, or refused with its name; then exact once the file is back.
fn damaged(job: &Job, name: &Path, damage: Damage, numbers: &mut Numbers) -> bool {
    let job = job.copy();
    let path = job.path("state/checkpoints").join(name);
    let whole = std::fs::read(&path).unwrap();
    damage.apply(&path, numbers);
    let said = job.run(&[]);
    println!("{damage:?} {}: {}\n{}", name.display(), said.code, said.err);
    if said.code == 0 {
        job.check();
        return true;
    }
    let told = match damage {
        // Nobody can know its name.
        Damage::Gone if name.starts_with("manifests") => "epoch 3 is decided, but the newest checkpoint found is 2",
        _ => name.to_str().unwrap(),
    };
    check_stop(&said, &[told]);
    std::fs::write(&path, whole).unwrap();
    job.finish();
    false
}

#[test]
fn folders_that_are_no_stores_are_named() {
    let job = died();
    let whole = job.copy();
    let broken = |what: &str, breaks: &dyn Fn(&Path), words: &[&str]| {
        let copy = job.copy();
        breaks(&copy.path("state"));
        let said = copy.run(&[]);
        println!("{what}: {}\n{}", said.code, said.err);
        check_stop(&said, words);
    };
    broken("segments are gone", &|state| std::fs::remove_dir_all(state.join("checkpoints/segments")).unwrap(), &["segments"]);
    broken(
        "manifests are gone",
        &|state| std::fs::remove_dir_all(state.join("checkpoints/manifests")).unwrap(),
        &["epoch", "checkpoints were lost"],
    );
    broken("progress is gone", &|state| std::fs::remove_dir_all(state.join("checkpoints/progress")).unwrap(), &["decision"]);
    broken(
        "a file instead of a folder",
        &|state| {
            std::fs::remove_dir_all(state.join("checkpoints/manifests")).unwrap();
            std::fs::write(state.join("checkpoints/manifests"), "").unwrap();
        },
        &["manifests"],
    );
    broken(
        "a file instead of the state",
        &|state| {
            std::fs::remove_dir_all(state).unwrap();
            std::fs::write(state, "").unwrap();
        },
        &["state"],
    );
    // What does not belong there is left alone.
    std::fs::write(whole.path("state/checkpoints/manifests/notes.txt"), "mine").unwrap();
    std::fs::write(whole.path("state/checkpoints/segments/.partial"), "").unwrap();
    whole.finish();
    assert!(whole.path("state/checkpoints/manifests/notes.txt").exists());
}

#[test]
fn a_wrong_bit_in_a_savepoint_is_found() {
    let job = died();
    job.die_at("run.decided", 1);
    let place = job.path("savepoint");
    let said: pelton_tests::pelton::Said =
        pelton_tests::pelton::pelton(&["savepoint", job.path("state").to_str().unwrap(), place.to_str().unwrap()]).output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let mut numbers = Numbers::new(3);
    for name in files(&place) {
        let whole = std::fs::read(&name).unwrap();
        Damage::Bit.apply(&name, &mut numbers);
        let begun = Job::new();
        let said = begun.run(&["--from", place.to_str().unwrap()]);
        println!("{}: {}\n{}", name.display(), said.code, said.err);
        check_stop(&said, &[name.file_name().unwrap().to_str().unwrap()]);
        std::fs::write(&name, whole).unwrap();
    }
}

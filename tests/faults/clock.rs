//! A clock that is set back, while the pipeline runs and between two runs: files go on to be published, and each row is in them once.
//!
//! The clock is that of one process: a library that stands before the system's reads how far to shift it from a file.

use pelton_tests::life::Life;
use pelton_tests::pelton::{pelton, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile long long *shift;
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_SHIFT"), O_RDONLY);
    void *mapped = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) abort();
    shift = mapped;
}
int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    if (id == CLOCK_REALTIME && shift) time->tv_sec += *shift;
    return result;
}
"#;

const PATIENCE: u64 = 180;
const HOUR: i64 = 3_600;

struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Clock {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SHIM).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler, which the Kafka client needs as well");
        let clock = Clock { library, shift: folder.join("shift") };
        std::fs::write(&clock.shift, 0i64.to_ne_bytes()).unwrap();
        clock
    }

    /// Written over, so that processes that have mapped the file see it.
    fn set(&self, seconds: i64) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).open(&self.shift).unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }
}

/// Files with their final names.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("rows-")).collect()
}

fn rows(files: &[PathBuf]) -> Vec<String> {
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut rows: Vec<String> = texts.iter().flat_map(|text| text.lines().map(str::to_string)).collect();
    rows.sort();
    rows
}

fn pipeline(file: &Path, count: Option<usize>) -> String {
    let amount = count.map_or("rate: 500".to_string(), |count| format!("count: {count}"));
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: GenerateEvents, config: {{kind: transactions, {amount}, interval: 1ms}}}}\n    - {{type: WriteToJson, config: {{path: '{}/rows', roll: {{interval: 1s}}}}}}\noptions: {{pelton: {{name: clock, checkpoint: {{interval: 100ms}}}}}}\n",
        file.parent().unwrap().display()
    );
    std::fs::write(file, text).unwrap();
    file.display().to_string()
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new(folder.path());
    let output = folder.path().join("output");
    std::fs::create_dir(&output).unwrap();
    let (file, state) = (pipeline(&output.join("pipeline.yaml"), None), folder.path().join("state").display().to_string());
    let environment = [("LD_PRELOAD", clock.library.to_str().unwrap()), ("CLOCK_SHIFT", clock.shift.to_str().unwrap())];
    let start = || Life::start(&["run", &file, "--state", &state, "--quiet"], &environment, &folder.path().join("log"));
    let more_parts = |life: &mut Life, what: &str| {
        let before = parts(&output).len();
        wait_for(what, PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            (parts(&output).len() >= before + 2).then_some(())
        });
    };
    let stop = |mut life: Life| {
        life.signal("TERM");
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
    };
    let mut life = start();
    more_parts(&mut life, "files as time goes on");
    clock.set(-HOUR);
    more_parts(&mut life, "files after the clock was set back");
    clock.set(HOUR);
    more_parts(&mut life, "files after the clock was set forward");
    life.kill();
    clock.set(-24 * HOUR);
    let mut life = start();
    more_parts(&mut life, "files of a process whose clock is behind that of the one before");
    stop(life);
    let found = rows(&parts(&output));
    // What a run of so many events gives.
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let file = pipeline(&plain.join("pipeline.yaml"), Some(found.len()));
    assert!(pelton(&["run", &file, "--quiet"]).status().unwrap().success());
    assert!(found == rows(&parts(&plain)), "{} rows are not those of a run with a clock in order", found.len());
}

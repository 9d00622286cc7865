//! Flink as a peer of `bench peers-traffic --with-flink`: its libraries are fetched from PyPI once, its job is compiled here, and it runs
//! in turns with Pelton over inputs of two lengths. The difference between the two is the time without start-up.

use crate::peers::{self, Contestant, Figures};
use crate::step::{cache, must, program, root, works};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "apache-flink-libraries==2.3.0";
/// Lines of the two inputs.
const SHORT: u64 = 2_000_000;
const LONG: u64 = 10_000_000;

/// The folder of Flink's jars: `$FLINK`, or what was fetched into the cache folder.
pub fn libraries() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("FLINK") {
        return Ok(folder.into());
    }
    let folder = cache()?.join("flink");
    let jars = folder.join("pyflink/lib");
    if !jars.is_dir() {
        println!("fetching {PACKAGE} (329 MB) into {}; this happens once", folder.display());
        let making = cache()?.join(format!("flink.making-{}", std::process::id()));
        std::fs::create_dir_all(&making)?;
        let download = must(program("python3").args(["-m", "pip", "download", "--no-deps", PACKAGE, "--dest"]).arg(&making));
        download.context("Flink cannot be fetched; set FLINK to the pyflink/lib folder of the package, or leave out --with-flink")?;
        must(program("python3").args(["-c", UNPACK]).arg(&making))?;
        std::fs::rename(&making, &folder).with_context(|| format!("{} is in the way; remove it", folder.display()))?;
    }
    Ok(jars)
}

/// Takes the jars out of the one wheel in a folder and removes it.
const UNPACK: &str = "import sys,os,glob,zipfile
[wheel]=glob.glob(sys.argv[1]+'/*.whl')
w=zipfile.ZipFile(wheel)
w.extractall(sys.argv[1],[n for n in w.namelist() if n.startswith('pyflink/lib/')])
os.remove(wheel)";

/// The command of the job, compiled if need be.
pub fn contestant(jars: &Path, input: &Path) -> Result<Contestant> {
    if !works(program("javac").arg("-version")) {
        bail!("javac is missing, which compiles Flink's job: apt-get install -y --no-install-recommends default-jdk-headless");
    }
    let classes = cache()?.join("flink-classes");
    let (jars, input) = (jars.to_path_buf(), input.to_path_buf());
    let command = move |out: &Path| {
        let mut command = Command::new("bash");
        command.arg(root().join("benches/peers/flink/run.sh")).arg(&input).arg(out.join("flink")).arg("2");
        command.env("FLINK", &jars).env("CLASSES", &classes);
        command
    };
    Ok(Contestant { name: "flink", command: Box::new(command), output: "flink" })
}

/// Flink and Pelton in turns over both inputs.
pub fn run() -> Result<()> {
    let jars = libraries()?;
    peers::build()?;
    let mut taken = Vec::new();
    for lines in [SHORT, LONG] {
        let input = peers::input(lines)?;
        let mut contestants = peers::pelton(&input);
        contestants.push(contestant(&jars, &input)?);
        // The hand-written program says what is right.
        contestants.insert(0, peers::hand_written(&input));
        taken.push(peers::round(&contestants, lines)?);
    }
    println!("\n{}", peers::machine());
    let [short, long] = taken.as_slice() else { unreachable!("two inputs") };
    let names: Vec<&str> = short.iter().map(|(name, _)| *name).collect();
    let flink = names.len() - 1;
    for (place, name) in names.iter().enumerate().take(flink) {
        println!("{name:<26} {}", compare([short[place].1, long[place].1], [short[flink].1, long[flink].1]));
    }
    Ok(())
}

/// How many times Flink's wall time, CPU time and memory a contestant's are.
fn compare(ours: [Figures; 2], flink: [Figures; 2]) -> String {
    let times = |of: fn(&Figures) -> f64| {
        let slope = (of(&flink[1]) - of(&flink[0])) / (of(&ours[1]) - of(&ours[0]));
        format!(
            "{:.1} x at {SHORT} lines, {:.1} x at {LONG}, {slope:.1} x by slope",
            of(&flink[0]) / of(&ours[0]),
            of(&flink[1]) / of(&ours[1])
        )
    };
    format!(
        "flink's wall time is {}; its CPU time {}; its peak memory {:.1} x and {:.1} x",
        times(|figures| figures.wall),
        times(|figures| figures.cpu),
        flink[0].peak_mib / ours[0].peak_mib,
        flink[1].peak_mib / ours[1].peak_mib
    )
}

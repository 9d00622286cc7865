//! Compiling in a process of its own, so that a component that takes long to compile, or is made to, takes neither the processor nor the memory of
//! the pipelines beside it.
//!
//! ```text
//! parent                                     child: PROGRAM compile-plugin --memory BYTES --cpu-seconds N
//!   component  -- stdin, a memory file -->     limits itself, lowers its priority, compiles
//!   code      <-- stdout, a memory file --     exit 0
//!   words     <-- stderr, a memory file --     exit 2: the component does not compile
//! ```
//! The child is the same program, so that its compiler and settings are the parent's. The files have no names: nobody else can put code into
//! them, and there is no pipe whose ends would have to be served at once. The environment of the parent, in which there may be secrets, is not
//! given to the child.

use crate::engine::settings;
use crate::error::PluginError;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The subcommand of the program that a child runs.
const SUBCOMMAND: &str = "compile-plugin";
/// Exit code: the component is to blame.
const COMPONENTS_FAULT: u8 = 2;
/// Threads of a child; half of the cores are left to the pipelines.
const MAX_THREADS: usize = 4;
/// Compiled code is larger than the component, and not by more.
const MAX_CODE_BYTES: u64 = 2 << 30;
/// Words of a child that are looked at.
const MAX_WORDS: u64 = 16 * 1024;
/// Lower than any pipeline's.
const NICENESS: i32 = 10;
/// How often a child is looked after, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// How components are compiled in child processes.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The program, which passes [`SUBCOMMAND`] on to [`compile_as_child`].
    pub program: PathBuf,
    /// Address space of a child.
    pub memory: u64,
    /// The name of this limit's setting, for messages.
    pub memory_setting: &'static str,
    /// After this long a child is killed.
    pub time: Duration,
    /// The name of this limit's setting, for messages.
    pub time_setting: &'static str,
}

/// Why there is no code.
pub(crate) enum Uncompiled {
    /// The component does not compile, in the compiler's words.
    Component(String),
    /// A limit, or the machine.
    Other(String),
}

/// What ended a child.
enum Ended {
    Itself(ExitStatus),
    ByDeadline,
}

impl Compiler {
    /// The code of a component, for an engine with the settings of this crate.
    pub(crate) fn compile(&self, component: &[u8]) -> Result<Vec<u8>, Uncompiled> {
        let broken =
            |error: io::Error| Uncompiled::Other(format!("it cannot be compiled, since {} cannot be run: {error}", self.program.display()));
        let files = || io::Result::Ok((memory_file(component)?, memory_file(&[])?, memory_file(&[])?));
        let (input, output, words) = files().map_err(broken)?;
        let mut child = self.start(&input, &output, &words).map_err(broken)?;
        let ended = self.watch(&mut child).map_err(broken)?;
        match ended {
            Ended::Itself(status) if status.success() => read_all(output, MAX_CODE_BYTES).map_err(broken),
            Ended::Itself(status) => {
                let words = read_all(words, MAX_WORDS).map_err(broken)?;
                Err(self.failed(status, String::from_utf8_lossy(&words).trim()))
            }
            Ended::ByDeadline => Err(self.too_long()),
        }
    }

    fn start(&self, input: &File, output: &File, words: &File) -> io::Result<Child> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = cores.div_ceil(2).min(MAX_THREADS);
        // More than all threads can use until the deadline: it ends a child whose parent has died.
        let cpu = self.time.as_secs().max(1) * threads as u64 + 1;
        let mut command = Command::new(&self.program);
        command
            .arg(SUBCOMMAND)
            .args(["--memory", &self.memory.to_string(), "--cpu-seconds", &cpu.to_string()])
            .env_clear()
            .envs(std::env::var_os("LD_LIBRARY_PATH").map(|value| ("LD_LIBRARY_PATH", value)))
            .env("RAYON_NUM_THREADS", threads.to_string())
            // Each arena of the allocator takes address space that is limited.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::from(input.try_clone()?))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(words.try_clone()?));
        command.spawn()
    }

    #[allow(clippy::disallowed_methods, reason = "the deadline of a process is by the clock")]
    fn watch(&self, child: &mut Child) -> io::Result<Ended> {
        let started = std::time::Instant::now();
        let mut look = FIRST_LOOK;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::Itself(status));
            }
            if started.elapsed() > self.time {
                // It may have ended by itself in between.
                let _ = child.kill();
                child.wait()?;
                return Ok(Ended::ByDeadline);
            }
            std::thread::sleep(look);
            look = (look * 2).min(LAST_LOOK);
        }
    }

    fn failed(&self, status: ExitStatus, words: &str) -> Uncompiled {
        let of_memory = ["memory allocation", "Cannot allocate memory", "out of memory", "os error 12"];
        if status.signal() == Some(libc::SIGXCPU) {
            return self.too_long();
        }
        if of_memory.iter().any(|of| words.contains(of)) || status.signal() == Some(libc::SIGKILL) {
            return Uncompiled::Other(format!(
                "compiling it needs more than {} MiB, the limit of memory for one compilation. Make the plugin smaller, or raise {} where it deserves it",
                self.memory >> 20,
                self.memory_setting
            ));
        }
        if status.code() == Some(COMPONENTS_FAULT.into()) {
            return Uncompiled::Component(words.into());
        }
        Uncompiled::Other(format!(
            "the process that compiled it ended with {status}: {}",
            if words.is_empty() { "it said nothing" } else { words }
        ))
    }

    fn too_long(&self) -> Uncompiled {
        Uncompiled::Other(format!(
            "compiling it took longer than {} s, the limit of time for one compilation. Make the plugin smaller, or raise {} where it deserves it",
            self.time.as_secs(),
            self.time_setting
        ))
    }
}

fn memory_file(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a C string, and the call has no other conditions.
    let descriptor = unsafe { libc::memfd_create(c"pelton-compile".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn read_all(mut file: File, most: u64) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = vec![];
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The child's side: compiles standard input to standard output. The answer is the exit code.
pub fn compile_as_child(memory: u64, cpu_seconds: u64) -> u8 {
    match limit_self(memory, cpu_seconds).map_err(|error| error.to_string()).and_then(|()| compile()) {
        Ok(()) => 0,
        Err(words) => {
            eprintln!("{words}");
            COMPONENTS_FAULT
        }
    }
}

fn compile() -> Result<(), String> {
    let mut component = vec![];
    io::stdin().lock().read_to_end(&mut component).map_err(|error| error.to_string())?;
    let engine = wasmtime::Engine::new(&settings()).map_err(|error| format!("{error:#}"))?;
    let code = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    let mut output = io::stdout().lock();
    output.write_all(&code).and_then(|()| output.flush()).map_err(|error| error.to_string())
}

fn limit_self(memory: u64, cpu_seconds: u64) -> io::Result<()> {
    for (resource, most) in
        [(libc::RLIMIT_AS, memory), (libc::RLIMIT_CPU, cpu_seconds), (libc::RLIMIT_CORE, 0), (libc::RLIMIT_FSIZE, MAX_CODE_BYTES)]
    {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the pointer is to a whole `rlimit` that lives until the call returns.
        checked(unsafe { libc::setrlimit(resource, &limit) })?;
    }
    // SAFETY: with this option the call takes a number and touches no memory.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // SAFETY: the call takes a number; its answer is the new priority, which may be -1.
    unsafe { libc::nice(NICENESS) };
    Ok(())
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Uncompiled {
    /// In words for whoever wants to load it.
    pub(crate) fn for_user(self, plugin: &str, bytes: usize) -> PluginError {
        match self {
            Uncompiled::Component(text) if text.contains("unexpected end") || text.contains("is out of bounds (bound") => {
                PluginError::NotAComponent {
                    plugin: plugin.into(),
                    message: format!("it ends after {bytes} bytes in the middle of a section, so it was cut off. Copy or build it again"),
                }
            }
            Uncompiled::Component(text) => PluginError::Load {
                plugin: plugin.into(),
                message: format!("it does not compile: {text}. Build it again with `pelton plugin build`"),
            },
            Uncompiled::Other(message) => PluginError::Load { plugin: plugin.into(), message },
        }
    }
}

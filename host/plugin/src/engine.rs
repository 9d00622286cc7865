//! From a file to a plugin: what kind of file it is, whose contract it follows, what it imports, its compiled code.
//!
//! Settings are those that make a replay on another machine give the same bits (NaNs canonical, no relaxed SIMD) and that keep a guest
//! in its sandbox (no threads, no 64-bit or multiple memories, deadlines by epochs).

use crate::cache::Cache;
use crate::compiler::{Compiler, Uncompiled};
use crate::contract::{self, VERSION};
use crate::error::PluginError;
use crate::plugin::Plugin;
use crate::ticker::Ticker;
use pelton_core::grants::Kind;
use pelton_core::release::MAX_COMPONENT_BYTES;
use sha2::{Digest, Sha256};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmtime::component::Component;
use wasmtime::component::types::{Component as ComponentType, ComponentItem};
use wasmtime::{Config, WasmBacktraceDetails};

/// Version of wasmtime, whose compiled code no other version may run.
const WASMTIME: &str = "48.0.8";
/// The interfaces that every plugin may import: its log, and its own state.
const GRANTED: [&str; 2] = ["pelton:plugin/log", "pelton:plugin/state"];

/// How an engine is set up.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where compiled code is kept; `None` compiles each time.
    pub cache_dir: Option<PathBuf>,
    /// How components are compiled in processes of their own; `None` compiles in this one.
    pub compiler: Option<Compiler>,
}

/// Compiles and runs components. One a process is enough.
pub struct Engine {
    core: Arc<Core>,
}

/// What plugins keep of their engine, so that its clock runs as long as any of them.
pub(crate) struct Core {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) ticker: Ticker,
    cache: Option<Cache>,
    compiler: Option<Compiler>,
}

impl Engine {
    /// Starts the clock thread.
    pub fn new(options: EngineOptions) -> Result<Engine, PluginError> {
        let wasm = wasmtime::Engine::new(&settings())
            .map_err(|error| PluginError::Internal(format!("the WebAssembly engine does not start: {error:#}")))?;
        let ticker = Ticker::start(wasm.clone())
            .map_err(|error| PluginError::Internal(format!("the engine's clock thread does not start: {error}")))?;
        let cache = options.cache_dir.and_then(|folder| {
            Cache::open(&folder)
                .inspect_err(|error| tracing::warn!(folder = %folder.display(), %error, "plugins are compiled at each start: the cache folder cannot be used"))
                .ok()
        });
        Ok(Engine { core: Arc::new(Core { wasm, ticker, cache, compiler: options.compiler }) })
    }

    /// Loads a component from a file.
    pub fn load(&self, path: &Path) -> Result<Arc<Plugin>, PluginError> {
        let name = path.display().to_string();
        let failed = |message: String| PluginError::Load { plugin: name.clone(), message };
        let size = std::fs::metadata(path).map_err(|error| failed(format!("{error}. Build it with `pelton plugin build`")))?.len();
        if size > MAX_COMPONENT_BYTES {
            return Err(failed(format!("it has {size} bytes; {MAX_COMPONENT_BYTES} are allowed")));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        self.load_bytes(&name, &bytes)
    }

    /// Loads a component; `name` stands in messages.
    pub fn load_bytes(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, PluginError> {
        let not = |message: String| PluginError::NotAComponent { plugin: name.into(), message };
        check_preamble(bytes).map_err(not)?;
        let digest = Plugin::digest_of(bytes);
        let component = self.compile(name, bytes, &digest)?;
        let kind = component.component_type();
        self.check_contract(name, &kind)?;
        // The exports first: a plugin of another role imports other things for good reason.
        self.check_exports(name, &kind)?;
        let imports = self.check_imports(name, &kind)?;
        Ok(Arc::new(Plugin::describe(self.core.clone(), name, &digest, bytes.len() as u64, imports, &component)?))
    }

    pub(crate) fn compile(&self, name: &str, bytes: &[u8], digest: &str) -> Result<Component, PluginError> {
        let key = self.cache_key(digest);
        if let Some(code) = self.core.cache.as_ref().and_then(|cache| cache.load(&key)) {
            // SAFETY: the MAC shows that this user's own Pelton wrote these bytes with `Component::serialize`, and the key of the entry
            // that it was for this version of wasmtime and these settings, which wasmtime checks again.
            match unsafe { Component::deserialize(&self.core.wasm, &code) } {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(plugin = name, %error, "compiled code in the cache does not fit this engine; compiling anew"),
            }
        }
        let (component, code) = self.compile_anew(bytes).map_err(|why| why.for_user(name, bytes.len()))?;
        if let Some(cache) = &self.core.cache {
            let code = code.map_or_else(|| component.serialize().map_err(std::io::Error::other), Ok);
            if let Err(error) = code.and_then(|code| cache.store(&key, &code)) {
                tracing::warn!(plugin = name, %error, "compiled code was not kept in the cache; the next start compiles again");
            }
        }
        Ok(component)
    }

    /// The component, and its code where that is at hand.
    fn compile_anew(&self, bytes: &[u8]) -> Result<(Component, Option<Vec<u8>>), Uncompiled> {
        let Some(compiler) = &self.core.compiler else {
            let component = Component::from_binary(&self.core.wasm, bytes).map_err(|error| Uncompiled::Component(format!("{error:#}")))?;
            return Ok((component, None));
        };
        let code = compiler.compile(bytes)?;
        // SAFETY: these bytes were written by `Engine::precompile_component` in a child that is the same program, into a file without a name
        // that only the two of them have.
        let component = unsafe { Component::deserialize(&self.core.wasm, &code) }.map_err(|error| {
            Uncompiled::Other(format!("the process that compiled it gave code that does not fit this engine: {error:#}"))
        })?;
        Ok((component, Some(code)))
    }

    fn cache_key(&self, digest: &str) -> String {
        let mut settings = DefaultHasher::new();
        self.core.wasm.precompile_compatibility_hash().hash(&mut settings);
        let key = Sha256::digest(format!("{WASMTIME} {:016x} {digest}", settings.finish()));
        key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Names of the imported interfaces; those that nothing gives are refused. Whether the others are granted is known when the plugin is used.
    /// Interfaces of types alone are no capability.
    fn check_imports(&self, name: &str, kind: &ComponentType) -> Result<Vec<String>, PluginError> {
        let mut names = vec![];
        for (import, item) in kind.imports(&self.core.wasm) {
            let is_types = match &item.ty {
                ComponentItem::ComponentInstance(instance) => {
                    instance.exports(&self.core.wasm).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
                }
                other => matches!(other, ComponentItem::Type(_)),
            };
            if is_types {
                continue;
            }
            let given = GRANTED.iter().any(|granted| import == format!("{granted}@{VERSION}"));
            if !given && Kind::of_import(import).is_none() {
                return Err(PluginError::Import { plugin: name.into(), import: import.into() });
            }
            names.push(import.to_owned());
        }
        Ok(names)
    }

    fn check_contract(&self, name: &str, kind: &ComponentType) -> Result<(), PluginError> {
        let (imports, exports) = (kind.imports(&self.core.wasm), kind.exports(&self.core.wasm));
        let Some(needs) = contract::other_version(imports.map(|(name, _)| name).chain(exports.map(|(name, _)| name))) else {
            return Ok(());
        };
        let next = match contract::is_newer(needs) {
            true => format!("run it with a Pelton that has {needs}, or build it against {VERSION} with this one's `pelton plugin build`"),
            false => "build it again with this Pelton's `pelton plugin build`".into(),
        };
        Err(PluginError::OtherContract { plugin: name.into(), needs: needs.into(), has: VERSION.into(), next })
    }

    /// The role is the exported interface, never what happens to instantiate.
    fn check_exports(&self, name: &str, kind: &ComponentType) -> Result<(), PluginError> {
        let exports: Vec<_> = kind.exports(&self.core.wasm).map(|(export, _)| export).collect();
        let has = |interface: &str| exports.contains(&format!("pelton:plugin/{interface}@{VERSION}").as_str());
        if has("plugin") && ["do-fn", "stateful-do-fn", "combine-fn"].into_iter().any(has) {
            return Ok(());
        }
        let found = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
        let wanted = format!("a world of pelton:plugin@{VERSION} (`transform`, `stateful-transform` or `combine`)");
        Err(PluginError::WrongWorld { plugin: name.into(), found, wanted })
    }
}

pub(crate) fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        // Costs nothing until a trap; only components that were built with lines have any.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config
}

/// Says what a file is that is no component, before the compiler does in its own words.
fn check_preamble(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("it is a core module. Build it with `pelton plugin build`, which makes a component of it".into())
        }
        [0, b'a', b's', b'm', version @ ..] if version.len() >= 4 => {
            Err("it has a WebAssembly version that this Pelton does not know. Build it with a current `pelton plugin build`".into())
        }
        [] => Err("it is empty. Build it again with `pelton plugin build`".into()),
        bytes if b"\0asm\x0d\0\x01\0".starts_with(bytes) || b"\0asm\x01\0\0\0".starts_with(bytes) => {
            Err(format!("it ends after {} bytes, so it was cut off. Copy or build it again", bytes.len()))
        }
        [0x7f, b'E', b'L', b'F', ..] => {
            Err("it is compiled code, which is never loaded from a file: give the component it was compiled from".into())
        }
        _ if looks_like_text(bytes) => {
            Err("it is WebAssembly text. Translate it with `wasm-tools parse`, or build with `pelton plugin build`".into())
        }
        _ => Err("it does not start as a WebAssembly file does. Give the file that `pelton plugin build` writes".into()),
    }
}

fn looks_like_text(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"(component") || start.starts_with(b"(module") || start.starts_with(b";;")
}

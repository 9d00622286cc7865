//! A loaded component.

use crate::binding::Binding;
use crate::contract::{Transform, TransformPre, describe, log};
use crate::descriptor::{Descriptor, Role};
use crate::engine::Core;
use crate::error::PluginError;
use crate::guest::fault;
use crate::limits::Limits;
use crate::sandbox::Sandbox;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, Linker};

/// A compiled component that has passed every check that needs no config.
pub struct Plugin {
    core: Arc<Core>,
    name: String,
    digest: Arc<str>,
    size: u64,
    imports: Vec<String>,
    descriptor: Descriptor,
    code: TransformPre<Sandbox>,
}

impl Plugin {
    pub(crate) fn describe(
        core: Arc<Core>,
        name: &str,
        digest: &str,
        size: u64,
        imports: Vec<String>,
        component: &Component,
    ) -> Result<Plugin, PluginError> {
        let failed = |message: String| PluginError::Load { plugin: name.into(), message };
        let mut linker: Linker<Sandbox> = Linker::new(&core.wasm);
        log::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox).map_err(|error| PluginError::Internal(error.to_string()))?;
        let code = linker.instantiate_pre(component).and_then(TransformPre::new).map_err(|error| {
            failed(format!(
                "its interfaces are not those of the contract: {error:#}. Build it again with this version's `pelton plugin build`"
            ))
        })?;
        let mut plugin = Plugin {
            core,
            name: name.into(),
            digest: digest.into(),
            size,
            imports,
            descriptor: Descriptor { name: String::new(), version: String::new(), transforms: vec![] },
            code,
        };
        let told = plugin.call_describe().map_err(|message| failed(format!("it fails when asked what it is: {message}")))?;
        plugin.descriptor = Descriptor::check(told).map_err(failed)?;
        Ok(plugin)
    }

    fn call_describe(&self) -> Result<describe::Descriptor, String> {
        let limits = Limits::default();
        let mut store = self.store("", &limits);
        let told = self.instantiate(&mut store).and_then(|transform| transform.pelton_plugin_plugin().call_describe(&mut store));
        told.map_err(|error| fault(&mut store, &error, &limits).message)
    }

    /// `sha256:` and the hex digest of the component's bytes.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the component says about itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Bytes of the component.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Path or name that it was loaded from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a transform once with this config and schema, and checks what it answers. `config` is an object that fits the transform's
    /// schema.
    pub fn bind(
        self: &Arc<Self>,
        transform: &str,
        config: &serde_json::Value,
        input: &SchemaRef,
        limits: &Limits,
    ) -> Result<Binding, PluginError> {
        let Some(spec) = self.descriptor.transforms.iter().find(|spec| spec.name == transform) else {
            let names = self.descriptor.transforms.iter().map(|spec| spec.name.as_str());
            return Err(PluginError::UnknownTransform {
                plugin: self.name.clone(),
                transform: transform.into(),
                nearest: pelton_core::catalog::nearest(transform, names).map(str::to_owned),
            });
        };
        if spec.role != Role::Transform {
            return Err(PluginError::WrongWorld {
                plugin: self.name.clone(),
                found: format!("`{transform}` as {:?}", spec.role),
                wanted: "a stateless transform".into(),
            });
        }
        Binding::bind(self, transform, config, input, limits)
    }

    pub(crate) fn store(&self, transform: &str, limits: &Limits) -> Store<Sandbox> {
        Sandbox::store(&self.core.wasm, self.core.ticker.ticks(), self.digest.clone(), transform, limits)
    }

    pub(crate) fn instantiate(&self, store: &mut Store<Sandbox>) -> wasmtime::Result<Transform> {
        Sandbox::begin_setup(store);
        self.code.instantiate(store)
    }
}

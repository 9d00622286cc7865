//! A loaded component.

use crate::binding::Binding;
use crate::combine::{CombineBinding, input_of};
use crate::contract::{combine_fn, describe, do_fn, env, http, log, monotonic_clock, random, ready, state, stateful_do_fn, wall_clock};
use crate::descriptor::{Descriptor, Role, TransformSpec};
use crate::engine::Core;
use crate::error::PluginError;
use crate::granted::{Effects, Granted};
use crate::guest::fault;
use crate::limits::Limits;
use crate::meters::Meters;
use crate::sandbox::Sandbox;
use crate::stateful::StatefulBinding;
use crate::ticker::Clock;
use crate::wasi;
use arrow::datatypes::{DataType, SchemaRef};
use pelton_core::grants::{self, Grants, Kind};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

/// A compiled component that has passed every check that needs no config.
#[derive(Clone)]
pub struct Plugin {
    core: Arc<Core>,
    name: String,
    digest: Arc<str>,
    size: u64,
    imports: Vec<String>,
    descriptor: Descriptor,
    code: Arc<Code>,
    granted: Arc<Granted>,
    /// The same without grants, which so stays loaded.
    _loaded: Option<Arc<Plugin>>,
}

/// A component ready to be instantiated, and where its exports are.
struct Code {
    instance: InstancePre<Sandbox>,
    plugin: describe::GuestIndices,
    do_fn: Option<do_fn::GuestIndices>,
    stateful: Option<stateful_do_fn::GuestIndices>,
    combine: Option<combine_fn::GuestIndices>,
}

/// The functions of the role that an instance serves.
pub(crate) enum Exports {
    Transform(do_fn::Guest),
    Stateful(stateful_do_fn::Guest),
    Combine(combine_fn::Guest),
}

impl Code {
    fn link(core: &Core, component: &Component) -> wasmtime::Result<Code> {
        let mut linker: Linker<Sandbox> = Linker::new(&core.wasm);
        log::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        state::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        http::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        env::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        wall_clock::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        monotonic_clock::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        random::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
        wasi::add_to_linker(&mut linker, &core.wasm, component)?;
        let instance = linker.instantiate_pre(component)?;
        Ok(Code {
            plugin: describe::GuestIndices::new(&instance)?,
            // A role is there when its interface is; one whose functions do not fit is found when it is loaded.
            do_fn: do_fn::GuestIndices::new(&instance).ok(),
            stateful: stateful_do_fn::GuestIndices::new(&instance).ok(),
            combine: combine_fn::GuestIndices::new(&instance).ok(),
            instance,
        })
    }

    fn exports(&self, role: Role, store: &mut Store<Sandbox>) -> wasmtime::Result<Exports> {
        let instance = ready(self.instance.instantiate_async(&mut *store))?;
        let absent = || wasmtime::Error::msg(format!("it does not export the interface `{}`", role.interface()));
        Ok(match role {
            Role::Transform => Exports::Transform(self.do_fn.as_ref().ok_or_else(absent)?.load(store, &instance)?),
            Role::StatefulTransform => Exports::Stateful(self.stateful.as_ref().ok_or_else(absent)?.load(store, &instance)?),
            Role::Combine => Exports::Combine(self.combine.as_ref().ok_or_else(absent)?.load(store, &instance)?),
        })
    }
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
        let code = Code::link(&core, component).map_err(|error| {
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
            code: Arc::new(code),
            granted: Arc::default(),
            _loaded: None,
        };
        let told = plugin.call_describe().map_err(|message| failed(format!("it fails when asked what it is: {message}")))?;
        plugin.descriptor = Descriptor::check(told).map_err(failed)?;
        plugin.check_roles().map_err(failed)?;
        Ok(plugin)
    }

    fn call_describe(&self) -> Result<describe::Descriptor, String> {
        let limits = Limits::default();
        let mut store = self.store("", &limits, Arc::default());
        Sandbox::begin_setup(&mut store, &limits);
        let instance = ready(self.code.instance.instantiate_async(&mut store));
        let told = instance.and_then(|instance| self.code.plugin.load(&mut store, &instance));
        let told = told.and_then(|plugin| ready(plugin.call_describe(&mut store)));
        told.map_err(|error| fault(&mut store, &error, &limits).message)
    }

    /// Every transform's role has its interface, and that has the contract's functions.
    fn check_roles(&self) -> Result<(), String> {
        let roles: BTreeSet<Role> = self.descriptor.transforms.iter().map(|spec| spec.role).collect();
        let limits = Limits::default();
        roles.into_iter().try_for_each(|role| {
            let mut store = self.store("", &limits, Arc::default());
            self.instantiate(role, &mut store, &limits).map(drop).map_err(|error| {
                format!("its descriptor has a transform of the role {role}, but {error:#}. Build it again with this version's `pelton plugin build`")
            })
        })
    }

    /// What the digest of a component with these bytes is.
    pub fn digest_of(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
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

    /// What it is granted.
    pub fn grants(&self) -> &Grants {
        &self.granted.grants
    }

    /// Whether grants are enough for what it imports. The error names the imports and the lines that would grant them.
    pub fn check_grants(&self, grants: &Grants) -> Result<(), PluginError> {
        match grants::missing(self.imports.iter().map(String::as_str), grants) {
            Some(missing) => Err(PluginError::NotGranted { plugin: self.name.clone(), missing }),
            None => Ok(()),
        }
    }

    /// The same plugin with these grants; values and secrets are read now.
    pub fn granted(self: &Arc<Self>, grants: &Grants) -> Result<Arc<Plugin>, PluginError> {
        self.check_grants(grants)?;
        if grants == self.grants() && self.granted.effects == Effects::Granted {
            return Ok(self.clone());
        }
        let read = Granted::read(grants, &|name| std::env::var(name).ok());
        let granted = read.map_err(|message| PluginError::Grant { plugin: self.name.clone(), message })?;
        Ok(Arc::new(Plugin { granted: Arc::new(granted), _loaded: Some(self.clone()), ..(**self).clone() }))
    }

    /// The same plugin for a run in which effects are refused, called as in "effects are refused in a test": it has clocks and the same random
    /// bytes each time, but no values, requests or secrets.
    pub fn harmless(self: &Arc<Self>, run: &'static str) -> Arc<Plugin> {
        Arc::new(Plugin { granted: Arc::new(Granted::harmless(run)), _loaded: Some(self.clone()), ..(**self).clone() })
    }

    /// Whether it may ask for what changes something outside.
    pub fn has_effects(&self) -> bool {
        self.imports.iter().any(|import| Kind::of_import(import) == Some(Kind::Http))
    }

    /// What it would be granted for its imports, as YAML; `None` if it needs no grants.
    pub fn needs(&self) -> Option<String> {
        grants::missing(self.imports.iter().map(String::as_str), &Grants::default()).map(|missing| missing.yaml)
    }

    pub(crate) fn effects(&self) -> Effects {
        self.granted.effects
    }

    pub(crate) fn check_own_grants(&self) -> Result<(), PluginError> {
        if self.granted.effects == Effects::Granted { self.check_grants(self.grants()) } else { Ok(()) }
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
        self.spec(transform, Role::Transform)?;
        Binding::bind(self, transform, Role::Transform, vec![], config, input, limits)
    }

    /// The same for a stateful transform; `key` are top-level columns of `input` whose types can be keys.
    pub fn bind_stateful(
        self: &Arc<Self>,
        transform: &str,
        config: &serde_json::Value,
        input: &SchemaRef,
        key: &[usize],
        limits: &Limits,
    ) -> Result<StatefulBinding, PluginError> {
        let spec = self.spec(transform, Role::StatefulTransform)?;
        let base = Binding::bind(self, transform, Role::StatefulTransform, key.to_vec(), config, input, limits)?;
        Ok(StatefulBinding { states: spec.states.clone().into(), timers: spec.timers.clone().into(), base })
    }

    /// The same for an aggregation of values of a type, as a `Combine` uses it.
    pub fn bind_combine(
        self: &Arc<Self>,
        transform: &str,
        config: &serde_json::Value,
        value: &DataType,
        limits: &Limits,
    ) -> Result<CombineBinding, PluginError> {
        let accumulator = self.spec(transform, Role::Combine)?.states.first().cloned();
        CombineBinding::check(Binding::bind(self, transform, Role::Combine, vec![], config, &input_of(value), limits)?, accumulator)
    }

    /// The specification of a transform that is used in a role.
    fn spec(&self, transform: &str, role: Role) -> Result<&TransformSpec, PluginError> {
        let Some(spec) = self.descriptor.transforms.iter().find(|spec| spec.name == transform) else {
            let names = self.descriptor.transforms.iter().map(|spec| spec.name.as_str());
            return Err(PluginError::UnknownTransform {
                plugin: self.name.clone(),
                transform: transform.into(),
                nearest: pelton_core::catalog::nearest(transform, names).map(str::to_owned),
            });
        };
        if spec.role != role {
            return Err(PluginError::WrongRole {
                plugin: self.name.clone(),
                transform: transform.into(),
                found: spec.role.to_string(),
                wanted: role.to_string(),
                next: spec.role.use_it().into(),
            });
        }
        Ok(spec)
    }

    pub(crate) fn store(&self, transform: &str, limits: &Limits, meters: Arc<Meters>) -> Store<Sandbox> {
        Sandbox::store(&self.core.wasm, self.core.ticker.clock(), self.digest.clone(), transform, limits, meters, self.granted.clone())
    }

    /// The clock of the engine.
    pub(crate) fn clock(&self) -> Arc<Clock> {
        self.core.ticker.clock()
    }

    pub(crate) fn instantiate(&self, role: Role, store: &mut Store<Sandbox>, limits: &Limits) -> wasmtime::Result<Exports> {
        Sandbox::begin_setup(store, limits);
        self.code.exports(role, store)
    }
}

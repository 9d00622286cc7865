//! A loaded component.

use crate::binding::Binding;
use crate::combine::{CombineBinding, input_of};
use crate::contract::{combine_fn, describe, do_fn, log, state, stateful_do_fn};
use crate::descriptor::{Descriptor, Role, TransformSpec};
use crate::engine::Core;
use crate::error::PluginError;
use crate::guest::fault;
use crate::limits::Limits;
use crate::sandbox::Sandbox;
use crate::stateful::StatefulBinding;
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::BTreeSet;
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

/// A compiled component that has passed every check that needs no config.
pub struct Plugin {
    core: Arc<Core>,
    name: String,
    digest: Arc<str>,
    size: u64,
    imports: Vec<String>,
    descriptor: Descriptor,
    code: Code,
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
        let instance = self.instance.instantiate(&mut *store)?;
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
            code,
        };
        let told = plugin.call_describe().map_err(|message| failed(format!("it fails when asked what it is: {message}")))?;
        plugin.descriptor = Descriptor::check(told).map_err(failed)?;
        plugin.check_roles().map_err(failed)?;
        Ok(plugin)
    }

    fn call_describe(&self) -> Result<describe::Descriptor, String> {
        let limits = Limits::default();
        let mut store = self.store("", &limits);
        Sandbox::begin_setup(&mut store);
        let told = self.code.instance.instantiate(&mut store).and_then(|instance| self.code.plugin.load(&mut store, &instance));
        let told = told.and_then(|plugin| plugin.call_describe(&mut store));
        told.map_err(|error| fault(&mut store, &error, &limits).message)
    }

    /// Every transform's role has its interface, and that has the contract's functions.
    fn check_roles(&self) -> Result<(), String> {
        let roles: BTreeSet<Role> = self.descriptor.transforms.iter().map(|spec| spec.role).collect();
        roles.into_iter().try_for_each(|role| {
            let mut store = self.store("", &Limits::default());
            self.instantiate(role, &mut store).map(drop).map_err(|error| {
                format!("its descriptor has a transform of the role {role}, but {error:#}. Build it again with this version's `pelton plugin build`")
            })
        })
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
        self.spec(transform, Role::Combine)?;
        CombineBinding::check(Binding::bind(self, transform, Role::Combine, vec![], config, &input_of(value), limits)?)
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

    pub(crate) fn store(&self, transform: &str, limits: &Limits) -> Store<Sandbox> {
        Sandbox::store(&self.core.wasm, self.core.ticker.ticks(), self.digest.clone(), transform, limits)
    }

    pub(crate) fn instantiate(&self, role: Role, store: &mut Store<Sandbox>) -> wasmtime::Result<Exports> {
        Sandbox::begin_setup(store);
        self.code.exports(role, store)
    }
}

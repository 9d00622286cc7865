//! `#[stateful]`: makes a type a stateful transform, from an `impl` with `process` and `on_timer`.
//!
//! Parameters are known by their names, so that a function takes what it needs and no more.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Error, FnArg, GenericArgument, Ident, ImplItem, ImplItemFn, ItemImpl, Pat, PathArguments, Result, ReturnType, Signature, Type};

use crate::combine::type_name;
use crate::transform::{Options, ToBatch, first_sentence, refuse_what_cannot_be, returns_iterator};

pub fn expand(options: Options, item: ItemImpl) -> Result<TokenStream> {
    options.refuse_versions()?;
    if options.columns || options.event_time || options.config.is_some() {
        return Err(Error::new(item.span(), "the options of a stateful transform are append, metrics(..), name = \"..\""));
    }
    if let Some((_, path, _)) = &item.trait_ {
        return Err(Error::new_spanned(path, "`#[stateful]` stands on a plain `impl Type` with `fn process`"));
    }
    let find = |name: &str| {
        item.items.iter().find_map(|item| match item {
            ImplItem::Fn(function) if function.sig.ident == name => Some(function),
            _ => None,
        })
    };
    let Some(process) = find("process") else {
        return Err(Error::new_spanned(&item.self_ty, "a stateful transform has a `fn process`"));
    };
    let rows = Function::read(process, "row")?;
    let on_timer = find("on_timer").map(|function| Function::read(function, "timer")).transpose()?;
    let of = |part: fn(&Function) -> Option<&Type>| part(&rows).or_else(|| on_timer.as_ref().and_then(part));
    let or = |kind: Option<&Type>, default: Type| kind.cloned().unwrap_or(default);
    let config = or(of(|function| function.config.as_ref()), syn::parse_quote!(()));
    let state = or(of(|function| function.state.as_ref()), syn::parse_quote!(()));
    let fired = on_timer.as_ref().and_then(|function| function.cell.as_ref());
    let timer = or(of(|function| function.timers.as_ref()).or(fired), syn::parse_quote!(::pelton_sdk::expansion::NoTimer));
    let Some(row) = &rows.cell else {
        return Err(Error::new_spanned(&process.sig, "`process` has a parameter `row: Row`"));
    };
    let mut row = row.clone();
    ToBatch.visit_type_mut(&mut row);

    let kind = &item.self_ty;
    let name = type_name(kind, options.name)?;
    let summary = first_sentence(&crate::documentation(&item.attrs));
    let (append, metrics) = (options.append, &options.metrics);
    let common = quote! {
        state: &mut #state, timers: &mut ::pelton_sdk::expansion::Timers<#timer>, ctx: &::pelton_sdk::expansion::Context
    };
    let on_row = rows.call(kind, "process");
    let on_row = quote!(|config: &'batch #config, row: #row, #common| #on_row);
    let visit = match &on_timer {
        Some(function) => {
            let cells = quote_spanned!(function.answer=> cells);
            let call = function.call(kind, "on_timer");
            quote!(visitor.#cells(#on_row, |config: &'batch #config, timer: #timer, #common| #call))
        }
        None => {
            let rows = quote_spanned!(rows.answer=> rows);
            quote!(visitor.#rows(#on_row))
        }
    };
    Ok(quote! {
        #item

        impl ::pelton_sdk::expansion::Stateful for #kind {
            const NAME: &'static str = #name;
            const SUMMARY: &'static str = #summary;
            const APPENDS: bool = #append;
            type Config = #config;
            const METRICS: &'static [&'static ::pelton_sdk::expansion::Metric] = &[#(#metrics.declaration()),*];
            type State = #state;
            type Timer = #timer;
            #[allow(unused_variables, reason = "what an author leaves out has no use for all of them")]
            fn visit<'batch, V: ::pelton_sdk::expansion::stateful::Visit<'batch, Self>>(visitor: V) -> V::Done {
                #visit
            }
        }

        impl ::pelton_sdk::expansion::Register for #kind {
            fn registered() -> ::pelton_sdk::expansion::Registered {
                ::pelton_sdk::expansion::stateful::registered::<#kind>()
            }
        }
    })
}

/// What the parameters of a function say.
struct Function {
    /// Names of the parameters as they are passed, in order.
    arguments: Vec<Ident>,
    /// The type of `row` or `timer`.
    cell: Option<Type>,
    config: Option<Type>,
    state: Option<Type>,
    /// The set `T` of `timers: &mut Timers<T>`.
    timers: Option<Type>,
    iterates: bool,
    /// Where an error about what it returns points.
    answer: Span,
}

impl Function {
    fn read(item: &ImplItemFn, cell: &str) -> Result<Function> {
        let signature = &item.sig;
        refuse_what_cannot_be(signature)?;
        let mut function = Function {
            arguments: vec![],
            cell: None,
            config: None,
            state: None,
            timers: None,
            iterates: returns_iterator(&signature.output),
            answer: match &signature.output {
                ReturnType::Default => signature.ident.span(),
                ReturnType::Type(_, kind) => kind.span(),
            },
        };
        for parameter in &signature.inputs {
            let (name, kind) = named(signature, parameter, cell)?;
            match name.as_str() {
                "config" => function.config = Some(behind(kind, false)?),
                "state" => function.state = Some(behind(kind, true)?),
                "timers" => function.timers = Some(set_of(behind(kind, true)?)?),
                "ctx" => drop(behind(kind, false)?),
                _ => function.cell = Some(kind.clone()),
            }
            function.arguments.push(Ident::new(&name, Span::call_site()));
        }
        Ok(function)
    }

    fn call(&self, kind: &Type, name: &str) -> TokenStream {
        let (name, arguments) = (Ident::new(name, Span::call_site()), &self.arguments);
        let call = quote!(<#kind>::#name(#(#arguments),*));
        if self.iterates { quote!(::pelton_sdk::expansion::Many(#call)) } else { call }
    }
}

/// A parameter's name without a leading `_`, and its type.
fn named<'p>(signature: &Signature, parameter: &'p FnArg, cell: &str) -> Result<(String, &'p Type)> {
    let known =
        format!("the parameters of `{}` are config, {cell}, state, timers and ctx: those that it needs, by these names", signature.ident);
    match parameter {
        FnArg::Receiver(receiver) => {
            Err(Error::new_spanned(receiver, "a stateful transform has no self: what it remembers is in `state`, for the host keeps it"))
        }
        FnArg::Typed(typed) => match &*typed.pat {
            Pat::Ident(pattern) => {
                let name = pattern.ident.to_string().trim_start_matches('_').to_owned();
                let is_known = ["config", cell, "state", "timers", "ctx"].contains(&name.as_str());
                if is_known { Ok((name, &typed.ty)) } else { Err(Error::new_spanned(&pattern.ident, known)) }
            }
            pattern => Err(Error::new_spanned(pattern, known)),
        },
    }
}

/// The type behind a reference.
fn behind(kind: &Type, mutable: bool) -> Result<Type> {
    match kind {
        Type::Reference(reference) if reference.mutability.is_some() == mutable => Ok((*reference.elem).clone()),
        _ => Err(Error::new_spanned(
            kind,
            if mutable { "this parameter is a `&mut` reference" } else { "this parameter is a `&` reference" },
        )),
    }
}

/// `T` of `Timers<T>`.
fn set_of(kind: Type) -> Result<Type> {
    if let Type::Path(path) = &kind
        && let Some(last) = path.path.segments.last()
        && last.ident == "Timers"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(set)) = arguments.args.first()
    {
        return Ok(set.clone());
    }
    Err(Error::new_spanned(kind, "`timers` is a `&mut Timers<T>`, where T is an enum with `#[derive(Timer)]`"))
}

//! `#[combine]`: names an `impl CombineFn for ..`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Error, ImplItem, ItemImpl, LitStr, Result, Type};

use crate::transform::{Options, first_sentence};

pub fn expand(options: Options, item: ItemImpl) -> Result<TokenStream> {
    if options.append || options.event_time || options.config.is_some() {
        return Err(Error::new(item.span(), "the options of an aggregation are columns, metrics(..), name = \"..\""));
    }
    let named = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last()).is_some_and(|last| last.ident == "CombineFn");
    if !named {
        return Err(Error::new_spanned(&item.self_ty, "`#[combine]` stands on an `impl CombineFn for ..`"));
    }
    let has_columns = item.items.iter().any(|item| matches!(item, ImplItem::Fn(function) if function.sig.ident == "add_columns"));
    if options.columns && !has_columns {
        return Err(Error::new_spanned(&item.self_ty, "`columns` says that there is a `fn add_columns`, but there is none"));
    }
    if !options.columns && has_columns {
        return Err(Error::new_spanned(&item.self_ty, "`add_columns` is called only with `#[combine(columns)]`"));
    }
    let kind = &item.self_ty;
    let name = type_name(kind, options.name)?;
    let summary = first_sentence(&crate::documentation(&item.attrs));
    let (columns, metrics) = (options.columns, &options.metrics);
    Ok(quote! {
        #item

        impl ::pelton_sdk::expansion::Described for #kind {
            const NAME: &'static str = #name;
            const SUMMARY: &'static str = #summary;
            const METRICS: &'static [&'static ::pelton_sdk::expansion::Metric] = &[#(#metrics.declaration()),*];
            const COLUMNS: bool = #columns;
        }

        impl ::pelton_sdk::expansion::Register for #kind {
            fn registered() -> ::pelton_sdk::expansion::Registered {
                ::pelton_sdk::expansion::combine::registered::<#kind>()
            }
        }
    })
}

/// The given name, or the type's in kebab-case.
pub fn type_name(kind: &Type, given: Option<LitStr>) -> Result<LitStr> {
    if let Some(name) = given {
        return Ok(name);
    }
    match kind {
        Type::Path(path) if path.path.segments.last().is_some_and(|last| last.arguments.is_empty()) => {
            let last = path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
            Ok(LitStr::new(&crate::kebab(&last), kind.span()))
        }
        _ => Err(Error::new_spanned(kind.to_token_stream(), "the type is a plain name, without parameters")),
    }
}

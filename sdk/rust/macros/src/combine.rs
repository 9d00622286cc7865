//! `#[combine]`: names an `impl CombineFn for ..`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ImplItem, ItemImpl, LitInt, LitStr, Result, Type};

use crate::transform::{Options, first_sentence};

pub fn expand(options: Options, item: ItemImpl) -> Result<TokenStream> {
    if options.append || options.event_time || options.config.is_some() {
        return Err(Error::new(
            item.span(),
            "the options of an aggregation are columns, metrics(..), version = .., migrate(..), name = \"..\"",
        ));
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
    let version = options.version.as_ref().map_or(Ok(1), LitInt::base10_parse::<u32>)?;
    crate::state::check_migrations(version, &options.migrations)?;
    let stored = quote!(::pelton_sdk::expansion::migrate::Stored<<#kind as ::pelton_sdk::expansion::combine::CombineFn>::Accumulator>);
    // An error points at the function; what it is called with is named here, also where a macro of the author's stands in between.
    let arguments = quote!(&[], accumulator);
    let (mut taken, mut arms) = (vec![], vec![]);
    for (from, function) in &options.migrations {
        taken.push(quote!(<#stored>::migration(#from, #function)));
        let call = quote_spanned!(function.span()=> <#stored>::migrate_entry(#function, #arguments));
        arms.push(quote!(#from => ::std::option::Option::Some(#call)));
    }
    Ok(quote! {
        #item

        impl ::pelton_sdk::expansion::Described for #kind {
            const NAME: &'static str = #name;
            const SUMMARY: &'static str = #summary;
            const METRICS: &'static [&'static ::pelton_sdk::expansion::Metric] = &[#(#metrics.declaration()),*];
            const COLUMNS: bool = #columns;
            const ACCUMULATOR: u32 = #version;

            fn migrations() -> ::std::vec::Vec<::pelton_sdk::expansion::Migration> {
                ::std::vec![#(#taken),*]
            }

            #[allow(unused_variables, reason = "what an author leaves out has no use for all of them")]
            fn migrate(version: u32, accumulator: &[u8]) -> ::std::option::Option<::pelton_sdk::expansion::migrate::Entry> {
                match version {
                    #(#arms,)*
                    _ => ::std::option::Option::None,
                }
            }
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

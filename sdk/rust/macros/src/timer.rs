//! `#[derive(Timer)]`: an enum whose variants are timers.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "timers are the variants of an enum"));
    };
    let name = &input.ident;
    let (mut specs, mut variants) = (vec![], vec![]);
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a timer has no fields: what it needs when it fires is kept in state"));
        }
        let ident = &variant.ident;
        let mut timer = LitStr::new(&crate::kebab(&ident.to_string()), ident.span());
        let mut time: Option<LitStr> = None;
        for attribute in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("timer")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("time") {
                    time = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("name") {
                    timer = meta.value()?.parse()?;
                } else {
                    return Err(meta.error("a timer takes `time = \"event\"` or `\"processing\"`, and `name = \"..\"`"));
                }
                Ok(())
            })?;
        }
        let domain = crate::state::domain(time.as_ref())?;
        specs.push(quote!(::pelton_sdk::expansion::TimerSpec { name: #timer.to_owned(), domain: #domain }));
        variants.push(ident);
    }
    let numbers: Vec<u32> = (0..variants.len() as u32).collect();
    Ok(quote! {
        impl ::std::clone::Clone for #name {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl ::std::marker::Copy for #name {}
        impl ::pelton_sdk::expansion::TimerSet for #name {
            fn specs() -> ::std::vec::Vec<::pelton_sdk::expansion::TimerSpec> {
                ::std::vec![#(#specs),*]
            }
            fn number(self) -> u32 {
                match self { #(Self::#variants => #numbers,)* }
            }
            fn of(number: u32) -> ::std::option::Option<Self> {
                match number { #(#numbers => ::std::option::Option::Some(Self::#variants),)* _ => ::std::option::Option::None }
            }
        }
    })
}

//! `#[derive(StateValue)]`: a struct that state can hold.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Result};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a state value is a struct; keep an enum as a number or a text"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a state value's fields have names: they stand in the descriptor"));
    };
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a state value has no parameters: it outlives every row"));
    }
    let name = &input.ident;
    let idents: Vec<_> = fields.named.iter().map(|field| &field.ident).collect();
    let names = fields.named.iter().map(|field| field.ident.as_ref().map(ToString::to_string).unwrap_or_default());
    let types: Vec<_> = fields
        .named
        .iter()
        .map(|field| {
            let kind = &field.ty;
            quote_spanned!(kind.span()=> <#kind as ::pelton_sdk::expansion::StateValue>)
        })
        .collect();
    let count = idents.len() as u32;
    Ok(quote! {
        impl ::pelton_sdk::expansion::StateValue for #name {
            fn fields(name: &str, nullable: bool, out: &mut ::std::vec::Vec<::pelton_sdk::expansion::Field>) {
                out.push(::pelton_sdk::expansion::Field { name: name.to_owned(), format: "+s".to_owned(), nullable, children: #count });
                #(#types::fields(#names, false, out);)*
            }
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                #(#types::encode(&self.#idents, out);)*
            }
            fn decode(from: &mut &[u8]) -> ::std::option::Option<Self> {
                ::std::option::Option::Some(Self { #(#idents: #types::decode(from)?),* })
            }
        }
        impl ::pelton_sdk::expansion::StateItem for #name {}
    })
}

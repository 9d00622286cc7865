//! `#[derive(StateValue)]`: a struct that state can hold.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
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
    let defaults = fields.named.iter().map(default).collect::<Result<Vec<_>>>()?;
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
                out.push(::pelton_sdk::expansion::Field { name: name.to_owned(), format: "+s".to_owned(), nullable, children: #count, default: ::std::option::Option::None });
                #(
                    let at = out.len();
                    #types::fields(#names, false, out);
                    out[at].default = #defaults;
                )*
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

/// `#[state(default)]` or `#[state(default = ..)]` of a field: the encoded value, or none.
fn default(field: &syn::Field) -> Result<TokenStream> {
    let kind = &field.ty;
    let mut default = quote!(::std::option::Option::None);
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("default") {
                return Err(meta
                    .error("a field of a state value takes `default` or `default = ..`: its value where stored ones have no such field"));
            }
            let value = match meta.input.peek(syn::Token![=]) {
                true => meta.value()?.parse::<syn::Expr>()?.to_token_stream(),
                false => quote!(::std::default::Default::default()),
            };
            default = quote! {{
                let value: #kind = #value;
                let mut bytes = ::std::vec![];
                <#kind as ::pelton_sdk::expansion::StateValue>::encode(&value, &mut bytes);
                ::std::option::Option::Some(bytes)
            }};
            Ok(())
        })?;
    }
    Ok(default)
}

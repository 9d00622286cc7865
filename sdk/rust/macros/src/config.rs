//! `#[derive(Config)]`: a struct of properties, or an enum of names.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Expr, Fields, LitStr, Result};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "a config has no type parameters and borrows nothing"));
    }
    let (schema, read) = match &input.data {
        Data::Struct(data) => properties(&data.fields, &input)?,
        Data::Enum(data) => names(data)?,
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "a config is a struct or an enum")),
    };
    let name = &input.ident;
    Ok(quote! {
        impl ::pelton_sdk::expansion::Config for #name {
            fn schema() -> ::pelton_sdk::expansion::Value { #schema }
            fn read(value: &::pelton_sdk::expansion::Value) -> ::std::result::Result<Self, ::std::string::String> { #read }
        }
    })
}

fn properties(fields: &Fields, input: &DeriveInput) -> Result<(TokenStream, TokenStream)> {
    let Fields::Named(fields) = fields else {
        return Err(Error::new_spanned(&input.ident, "a config's fields have names"));
    };
    let (mut described, mut names, mut reads) = (vec![], vec![], vec![]);
    for field in &fields.named {
        let (Some(ident), kind) = (&field.ident, &field.ty) else { continue };
        let name = LitStr::new(&ident.to_string(), ident.span());
        let about = crate::documentation(&field.attrs);
        let default = default(field)?;
        let (shown, taken, required) = match &default {
            None => (quote!(None), quote!(None), quote!(<#kind as ::pelton_sdk::expansion::Config>::absent().is_none())),
            Some(default) => (quote!(Some(::pelton_sdk::expansion::json!(#default))), quote!(Some(|| (#default).into())), quote!(false)),
        };
        described.push(quote! {
            ::pelton_sdk::expansion::Property {
                name: #name, about: #about, schema: <#kind as ::pelton_sdk::expansion::Config>::schema(), required: #required, default: #shown,
            }
        });
        reads.push(quote!(#ident: properties.take::<#kind>(#name, #taken)?));
        names.push(name);
    }
    let schema = quote!(::pelton_sdk::expansion::object(::std::vec![#(#described),*]));
    let read = quote! {
        let properties = ::pelton_sdk::expansion::Properties::of(value, &[#(#names),*])?;
        Ok(Self { #(#reads),* })
    };
    Ok((schema, read))
}

fn default(field: &syn::Field) -> Result<Option<Expr>> {
    let mut default = None;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("default") {
                return Err(meta.error("a config's field takes `#[config(default = ..)]`"));
            }
            default = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(default)
}

fn names(data: &syn::DataEnum) -> Result<(TokenStream, TokenStream)> {
    let (mut names, mut idents, mut numbers) = (vec![], vec![], vec![]);
    for (number, variant) in data.variants.iter().enumerate() {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "an enum in a config is a choice of names: its variants hold nothing"));
        }
        names.push(crate::kebab(&variant.ident.to_string()));
        idents.push(&variant.ident);
        numbers.push(number);
    }
    let schema = quote!(::pelton_sdk::expansion::names(&[#(#names),*]));
    let read = quote! {
        match ::pelton_sdk::expansion::read_name(value, &[#(#names),*])? {
            #(#numbers => Ok(Self::#idents),)*
            _ => unreachable!("read_name answers the number of a name"),
        }
    };
    Ok((schema, read))
}

//! `#[derive(Outputs)]`: an enum whose variants are outputs.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Index, LitInt, LitStr, Result, Type, Variant};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "outputs are the variants of an enum; for a struct derive Row"));
    };
    let name = &input.ident;
    let (implemented, named, _) = input.generics.split_for_impl();
    let (mut tags, mut rows, mut arms, mut ports) = (vec![], vec![], vec![], vec![]);
    for (number, variant) in data.variants.iter().enumerate() {
        let ident = &variant.ident;
        let port = Index::from(number);
        let row = row_of(variant)?;
        arms.push(match &variant.fields {
            Fields::Unit => quote!(Self::#ident => ports.#port.push((), origin)),
            _ => quote!(Self::#ident(row) => ports.#port.push(row, origin)),
        });
        rows.push(row);
        tags.push(tag(variant)?);
        let number = LitInt::new(&number.to_string(), ident.span());
        ports.push(quote!(ports.#port.finish(#number, input_rows, outputs)));
    }
    Ok(quote! {
        impl #implemented ::pelton_sdk::expansion::Outputs for #name #named {
            type Ports = (#(::pelton_sdk::expansion::Port<#rows>,)*);
            fn shapes() -> ::std::vec::Vec<::pelton_sdk::expansion::Shape> {
                ::std::vec![#(::pelton_sdk::expansion::Shape::of::<#rows>(#tags)),*]
            }
            fn ports(rows: usize) -> Self::Ports {
                (#(::pelton_sdk::expansion::Port::<#rows>::new(rows),)*)
            }
            #[inline(always)]
            fn emit(self, ports: &mut Self::Ports, origin: u32) {
                match self { #(#arms,)* }
            }
            fn finish(ports: Self::Ports, input_rows: u32, outputs: &mut ::std::vec::Vec<::pelton_sdk::expansion::Output>) {
                #(#ports;)*
            }
        }
    })
}

fn row_of(variant: &Variant) -> Result<Type> {
    match &variant.fields {
        Fields::Unit => Ok(syn::parse_quote!(())),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(fields.unnamed[0].ty.clone()),
        _ => Err(Error::new_spanned(
            variant,
            "an output's variant holds one row, `Late(LateRow)`, or nothing, which passes the input's columns",
        )),
    }
}

fn tag(variant: &Variant) -> Result<LitStr> {
    let mut tag = LitStr::new(&crate::kebab(&variant.ident.to_string()), variant.ident.span());
    for attribute in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("output")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("main") {
                tag = LitStr::new("", variant.ident.span());
            } else if meta.path.is_ident("tag") {
                tag = meta.value()?.parse()?;
            } else {
                return Err(meta.error("a variant takes `#[output(main)]` or `#[output(tag = \"..\")]`"));
            }
            Ok(())
        })?;
    }
    Ok(tag)
}

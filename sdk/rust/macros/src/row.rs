//! `#[derive(Row)]`: reading and writing a struct, field by field.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Index, Lifetime, LitStr, Result};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a row is a struct; for an enum of outputs derive Outputs"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a row's fields have names: they are the names of its columns"));
    };
    let lifetime = lifetime(&input)?;
    let name = &input.ident;
    let mut columns = vec![];
    for field in &fields.named {
        columns.push(column_name(field)?);
    }
    let idents: Vec<_> = fields.named.iter().map(|field| &field.ident).collect();
    let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
    let numbers: Vec<_> = (0..columns.len()).map(Index::from).collect();
    let generics = if input.generics.params.is_empty() { quote!() } else { quote!(<#lifetime>) };
    // A field such as `&'static str` can be written and not read; the bound puts off the question until somebody reads the row.
    let fixed: Vec<_> = types.iter().filter(|kind| quote!(#kind).to_string().contains("'static")).collect();

    // Spanned as the type is, so that a type that cannot stand in a column is shown where the author wrote it.
    let reads: Vec<_> =
        types.iter().map(|kind| quote_spanned!(kind.span()=> <#kind as ::pelton_sdk::expansion::Read<#lifetime>>)).collect();
    let writes: Vec<_> = types.iter().map(|kind| quote_spanned!(kind.span()=> <#kind as ::pelton_sdk::expansion::Write>)).collect();

    Ok(quote! {
        impl<#lifetime> ::pelton_sdk::expansion::ReadRow<#lifetime> for #name #generics
        where #(#fixed: ::pelton_sdk::expansion::Read<#lifetime>,)*
        {
            type Readers = (#(#reads::Reader,)*);
            fn wants() -> ::std::vec::Vec<::pelton_sdk::expansion::Want> {
                ::std::vec![#(::pelton_sdk::expansion::want::<#types>(#columns)),*]
            }
            fn readers(flat: ::pelton_sdk::expansion::Flat<#lifetime>, first: ::pelton_sdk::expansion::Place) -> Self::Readers {
                (#(::pelton_sdk::expansion::field_reader::<#types>(flat, first, #columns),)*)
            }
            #[inline(always)]
            fn read(readers: &Self::Readers, row: usize) -> ::std::result::Result<Self, ::pelton_sdk::expansion::Null> {
                Ok(Self { #(#idents: ::pelton_sdk::expansion::read_field(&readers.#numbers, row, #columns)?),* })
            }
        }

        impl #generics ::pelton_sdk::expansion::WriteRow for #name #generics {
            type Writers = (#(#writes::Writer,)*);
            fn fields(out: &mut ::std::vec::Vec<::pelton_sdk::expansion::Field>) {
                #(#writes::fields(#columns, false, out);)*
            }
            fn writers(rows: usize) -> Self::Writers {
                (#(#writes::writer(rows),)*)
            }
            #[inline(always)]
            fn write(self, writers: &mut Self::Writers) {
                #(#writes::write(self.#idents, &mut writers.#numbers);)*
            }
            fn write_filler(writers: &mut Self::Writers) {
                #(#writes::write_filler(&mut writers.#numbers);)*
            }
            fn finish(writers: Self::Writers, out: &mut ::pelton_sdk::expansion::Buffers) {
                #(#writes::finish(writers.#numbers, out);)*
            }
        }
    })
}

/// The struct's lifetime, or one for the implementation of a struct that owns its cells.
fn lifetime(input: &DeriveInput) -> Result<Lifetime> {
    let mut lifetimes = input.generics.params.iter().map(|parameter| match parameter {
        GenericParam::Lifetime(lifetime) => Ok(lifetime.lifetime.clone()),
        other => Err(Error::new_spanned(other, "a row has no type parameters")),
    });
    let first = lifetimes.next().transpose()?;
    match lifetimes.next().transpose()? {
        Some(second) => Err(Error::new_spanned(second, "a row borrows from one place, the batch: one lifetime is enough")),
        None => Ok(first.unwrap_or_else(|| Lifetime::new("'batch", proc_macro2::Span::call_site()))),
    }
}

fn column_name(field: &syn::Field) -> Result<LitStr> {
    let ident = field.ident.as_ref().ok_or_else(|| Error::new_spanned(field, "a row's fields have names"))?;
    let text = ident.to_string();
    let mut name = LitStr::new(text.strip_prefix("r#").unwrap_or(&text), ident.span());
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("a field of a row takes `#[row(name = \"..\")]`"));
            }
            name = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(name)
}

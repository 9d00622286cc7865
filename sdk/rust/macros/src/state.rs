//! `#[derive(State)]`: a struct whose fields are handles of state.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, LitInt, LitStr, Path, Result, Token};

/// What `#[state(..)]` says of a field.
struct Options {
    name: LitStr,
    version: u32,
    ttl: TokenStream,
    /// Versions, and the functions that take their values.
    migrations: Vec<(LitInt, Path)>,
}

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a state is a struct: one field for each thing that is kept"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a state's fields have names: they are the names of the states"));
    };
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a state has no parameters: it outlives every row"));
    }
    let name = &input.ident;
    let (mut specs, mut loads, mut visits, mut arms) = (vec![], vec![], vec![], vec![]);
    for (number, field) in fields.named.iter().enumerate() {
        let (ident, kind, number) = (&field.ident, &field.ty, number as u32);
        let Options { name, version, ttl, migrations } = options(field)?;
        // An error about the field's type points at it.
        let as_kind = quote_spanned!(kind.span()=> <#kind as ::pelton_sdk::expansion::Kind>);
        let taken = migrations.iter().map(|(version, function)| quote!(<#kind>::migration(#version, #function)));
        specs.push(quote! {{
            let mut spec = #as_kind::spec(#name, #version, #ttl);
            spec.migrates = ::std::vec![#(#taken),*];
            spec
        }});
        for (version, function) in &migrations {
            let arguments = quote!(key, value);
            let call = quote_spanned!(function.span()=> <#kind>::migrate_entry(#function, #arguments));
            arms.push(quote!((#name, #version) => ::std::option::Option::Some(#call)));
        }
        loads.push(quote!(#ident: #as_kind::load(cell, #number, #name, #ttl)));
        visits.push(quote!(visit(#as_kind::handle(&mut self.#ident));));
    }
    Ok(quote! {
        impl ::pelton_sdk::expansion::State for #name {
            fn specs() -> ::std::vec::Vec<::pelton_sdk::expansion::StateSpec> {
                ::std::vec![#(#specs),*]
            }
            fn load(cell: &::pelton_sdk::expansion::Cell) -> Self {
                Self { #(#loads),* }
            }
            fn each(&mut self, visit: &mut dyn FnMut(&mut dyn ::pelton_sdk::expansion::Handle)) {
                #(#visits)*
            }
            #[allow(unused_variables, reason = "what an author leaves out has no use for all of them")]
            fn migrate(name: &str, version: u32, key: &[u8], value: &[u8]) -> ::std::option::Option<::pelton_sdk::expansion::migrate::Entry> {
                match (name, version) {
                    #(#arms,)*
                    _ => ::std::option::Option::None,
                }
            }
        }
    })
}

fn options(field: &Field) -> Result<Options> {
    let ident = field.ident.as_ref().ok_or_else(|| Error::new_spanned(field, "a field has a name"))?;
    let mut name = LitStr::new(&ident.to_string(), ident.span());
    let (mut version, mut ttl, mut time): (u32, Option<LitStr>, Option<LitStr>) = (1, None, None);
    let mut migrations = vec![];
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = meta.value()?.parse()?;
            } else if meta.path.is_ident("version") {
                version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            } else if meta.path.is_ident("migrate") {
                migrations.extend(parse_migrations(meta.input)?);
            } else if meta.path.is_ident("ttl") {
                ttl = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("time") {
                time = Some(meta.value()?.parse()?);
            } else {
                return Err(
                    meta.error("a state takes `ttl = \"1h\"`, `time = \"event\"` or `\"processing\"`, `name = \"..\"`, `version = 2`, `migrate(1 = function)`")
                );
            }
            Ok(())
        })?;
    }
    let ttl = match (ttl, time) {
        (None, None) => quote!(::std::option::Option::None),
        (None, Some(time)) => return Err(Error::new_spanned(time, "`time` says which clock a TTL follows, but there is no `ttl`")),
        (Some(ttl), time) => {
            let (micros, domain) = (micros(&ttl)?, domain(time.as_ref())?);
            quote!(::std::option::Option::Some(::pelton_sdk::expansion::Ttl { micros: #micros, domain: #domain }))
        }
    };
    check_migrations(version, &migrations)?;
    Ok(Options { name, version, ttl, migrations })
}

/// `(1 = function, ..)`: versions, and the functions that take their values.
pub fn parse_migrations(input: ParseStream<'_>) -> Result<Vec<(LitInt, Path)>> {
    let content;
    syn::parenthesized!(content in input);
    let migration = |input: ParseStream<'_>| {
        let version = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok((version, input.parse()?))
    };
    Ok(content.parse_terminated(migration, Token![,])?.into_iter().collect())
}

/// Migrations are from other versions than today's.
pub fn check_migrations(version: u32, migrations: &[(LitInt, Path)]) -> Result<()> {
    let is_same = |from: &LitInt| from.base10_parse::<u32>().is_ok_and(|from| from == version);
    match migrations.iter().find(|(from, _)| is_same(from)) {
        Some((same, _)) => Err(Error::new_spanned(same, "a migration is from another version: say a higher `version`")),
        None => Ok(()),
    }
}

/// Which clock `time = ".."` names; event time without it.
pub fn domain(time: Option<&LitStr>) -> Result<TokenStream> {
    match time.map(LitStr::value).as_deref() {
        None | Some("event") => Ok(quote!(::pelton_sdk::expansion::TimeDomain::EventTime)),
        Some("processing") => Ok(quote!(::pelton_sdk::expansion::TimeDomain::ProcessingTime)),
        Some(_) => Err(Error::new_spanned(time, "a time is \"event\" (the watermark) or \"processing\" (the time of day)")),
    }
}

fn micros(text: &LitStr) -> Result<i64> {
    let wrong = || Error::new_spanned(text, "a duration is a whole number and a unit of ms, s, m, h or d, such as \"90s\"; more than 0");
    let value = text.value();
    let split = value.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = value.split_at(split);
    let unit: i64 = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(wrong()),
    };
    number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit)).filter(|micros| *micros > 0).ok_or_else(wrong)
}

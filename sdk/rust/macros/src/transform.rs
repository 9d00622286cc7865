//! `#[transform]`: beside the function, a type of its name that implements `Transform`.
//!
//! A function and a type may have one name, so `plugin!(parse)` and `testing::run::<parse>` name the type where the author sees one thing.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Error, FnArg, GenericParam, ItemFn, Lifetime, LitInt, LitStr, Path, Result, ReturnType, Signature, Token, Type};

#[derive(Default)]
pub struct Options {
    pub append: bool,
    pub columns: bool,
    pub event_time: bool,
    pub metrics: Vec<Path>,
    pub config: Option<Type>,
    pub name: Option<LitStr>,
    /// Of an aggregation: the version of its accumulator, and functions that take those of others.
    pub version: Option<LitInt>,
    pub migrations: Vec<(LitInt, Path)>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Options> {
        let mut options = Options::default();
        while !input.is_empty() {
            let option: syn::Ident = input.parse()?;
            match option.to_string().as_str() {
                "append" => options.append = true,
                "columns" => options.columns = true,
                "event_time" => options.event_time = true,
                "metrics" => {
                    let listed;
                    syn::parenthesized!(listed in input);
                    options.metrics = Punctuated::<Path, Token![,]>::parse_terminated(&listed)?.into_iter().collect();
                }
                "config" => {
                    input.parse::<Token![=]>()?;
                    options.config = Some(input.parse()?);
                }
                "name" => {
                    input.parse::<Token![=]>()?;
                    options.name = Some(input.parse()?);
                }
                "version" => {
                    input.parse::<Token![=]>()?;
                    options.version = Some(input.parse()?);
                }
                "migrate" => options.migrations.extend(crate::state::parse_migrations(input)?),
                _ => {
                    return Err(Error::new_spanned(
                        option,
                        "the options are append, columns, event_time, metrics(..), config = .., name = \"..\"; of an aggregation also version = 2, \
                         migrate(1 = function)",
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    /// Only accumulators have a version here; a state has its own.
    pub fn refuse_versions(&self) -> Result<()> {
        match self.version.as_ref().or(self.migrations.first().map(|(version, _)| version)) {
            Some(version) => {
                Err(Error::new_spanned(version, "`version` and `migrate(..)` are of `#[combine]`, or of a field with `#[state(..)]`"))
            }
            None => Ok(()),
        }
    }
}

pub fn expand(options: Options, function: ItemFn) -> Result<TokenStream> {
    options.refuse_versions()?;
    refuse_what_cannot_be(&function.sig)?;
    let parameters = parameters(&options, &function)?;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let name = options.name.clone().unwrap_or_else(|| LitStr::new(&crate::kebab(&ident.to_string()), ident.span()));
    let summary = first_sentence(&crate::documentation(&function.attrs));
    let (append, metrics) = (options.append, &options.metrics);
    let needs_event_times = options.event_time || parameters.event_time;
    let config = parameters.config.clone().unwrap_or_else(|| syn::parse_quote!(()));
    let row = &parameters.row;

    let config_argument = parameters.config.is_some().then(|| quote!(config,));
    let time_argument = parameters.event_time.then(|| quote!(, time));
    // An error about what the function returns points at what it returns.
    let answer_span = match &function.sig.output {
        ReturnType::Default => ident.span(),
        ReturnType::Type(_, kind) => kind.span(),
    };
    let visit = if options.columns {
        let emit = &parameters.emit;
        quote!(visitor.columns(|config: &'batch #config, input: #row, emit: #emit| #ident(#config_argument input, emit)))
    } else {
        let call = quote!(#ident(#config_argument row #time_argument));
        let call = if returns_iterator(&function.sig.output) { quote!(::pelton_sdk::expansion::Many(#call)) } else { call };
        let rows = quote_spanned!(answer_span=> rows);
        quote!(visitor.#rows(|config: &'batch #config, row: #row, time: ::pelton_sdk::expansion::EventTime| #call))
    };

    Ok(quote! {
        #function

        #[allow(non_camel_case_types)]
        #[doc = #summary]
        #visibility enum #ident {}

        impl ::pelton_sdk::expansion::Transform for #ident {
            const NAME: &'static str = #name;
            const SUMMARY: &'static str = #summary;
            const APPENDS: bool = #append;
            const NEEDS_EVENT_TIMES: bool = #needs_event_times;
            type Config = #config;
            const METRICS: &'static [&'static ::pelton_sdk::expansion::Metric] = &[#(#metrics.declaration()),*];
            #[allow(unused_variables, reason = "what an author leaves out has no use for all of them")]
            fn visit<'batch, V: ::pelton_sdk::expansion::Visit<'batch, Self::Config>>(visitor: V) -> V::Done {
                #visit
            }
        }

        impl ::pelton_sdk::expansion::Register for #ident {
            fn registered() -> ::pelton_sdk::expansion::Registered {
                ::pelton_sdk::expansion::registered::<#ident>()
            }
        }
    })
}

pub(crate) fn refuse_what_cannot_be(signature: &Signature) -> Result<()> {
    if let Some(found) = &signature.asyncness {
        return Err(Error::new_spanned(found, "a transform is called with a batch and returns its result: it cannot be async"));
    }
    for parameter in &signature.generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            return Err(Error::new_spanned(parameter, "a transform has no type parameters: its columns must be known"));
        }
    }
    Ok(())
}

struct Parameters {
    config: Option<Type>,
    /// The row, or in a `columns` transform the columns.
    row: Type,
    emit: Option<Type>,
    event_time: bool,
}

fn parameters(options: &Options, function: &ItemFn) -> Result<Parameters> {
    let mut types = vec![];
    let mut event_time = false;
    for parameter in &function.sig.inputs {
        let FnArg::Typed(parameter) = parameter else {
            return Err(Error::new_spanned(parameter, "a transform is a plain function, without self"));
        };
        match &*parameter.ty {
            Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "EventTime") => event_time = true,
            kind => types.push(kind.clone()),
        }
    }
    let needed = if options.columns { 2 } else { 1 };
    let shape = match options.columns {
        true => "fn(input: &ColumnsOf<'_, Row>, out: &mut Emit<Row>), or with `config: &Config` before them",
        false => "fn(row: Row), or with `config: &Config` before and `time: EventTime` after it",
    };
    let wrong = || Error::new_spanned(&function.sig, format!("the parameters of this transform are {shape}"));
    if types.len() < needed || types.len() > needed + 1 {
        return Err(wrong());
    }
    let config = if types.len() > needed {
        let Type::Reference(reference) = types.remove(0) else { return Err(wrong()) };
        Some(options.config.clone().unwrap_or(*reference.elem))
    } else if let Some(config) = &options.config {
        return Err(Error::new_spanned(config, "the function has no parameter `config: &..` of this type"));
    } else {
        None
    };
    let emit = if options.columns { types.pop() } else { None };
    let mut row = types.pop().ok_or_else(wrong)?;
    match &mut row {
        // Only what is inside borrows from the batch; the reference itself is as short as the call.
        Type::Reference(reference) if options.columns => ToBatch.visit_type_mut(&mut reference.elem),
        row => ToBatch.visit_type_mut(row),
    }
    Ok(Parameters { config, row, emit, event_time })
}

/// Names every lifetime of the row `'batch`: that is what it borrows from.
pub(crate) struct ToBatch;

impl VisitMut for ToBatch {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            *lifetime = Lifetime::new("'batch", Span::call_site());
        }
    }
}

pub(crate) fn returns_iterator(output: &ReturnType) -> bool {
    matches!(output, ReturnType::Type(_, kind) if matches!(**kind, Type::ImplTrait(_)))
}

pub(crate) fn first_sentence(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    match paragraph.find(". ") {
        Some(end) => paragraph[..=end].to_owned(),
        None => paragraph,
    }
}

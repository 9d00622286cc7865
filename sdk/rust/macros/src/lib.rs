//! The macros of pelton-sdk. Each expands to an implementation of one of its traits; all work is done there, in ordinary functions.
//!
//! - [`row`]: `#[derive(Row)]`, a struct whose fields are columns.
//! - [`outputs`]: `#[derive(Outputs)]`, an enum whose variants are outputs.
//! - [`config`]: `#[derive(Config)]`, a transform's config.
//! - [`mod@transform`]: `#[transform]`, a function that a pipeline can name.
//!
//! Invariant: what the author wrote keeps its place in the source, so that the compiler's errors point at it.

mod config;
mod outputs;
mod row;
mod transform;

use proc_macro::TokenStream;

/// Makes a struct a row: its fields are columns, found by name. `#[row(name = "http-status")]` names a column that is no Rust name.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(row::expand))
}

/// Makes each variant of an enum an output: `Late(Row)` is the output `late`, `#[output(main)]` marks the main one, and a variant without
/// a row passes the input's columns as they came.
#[proc_macro_derive(Outputs, attributes(output))]
pub fn derive_outputs(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(outputs::expand))
}

/// Makes a struct, or an enum of names, a config. `#[config(default = 10)]` makes a field optional; its comment is its description.
#[proc_macro_derive(Config, attributes(config))]
pub fn derive_config(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(config::expand))
}

/// Makes a function a transform, named in kebab-case.
///
/// - `append`: the input's columns pass, and the new ones come after them.
/// - `columns`: the function is called once a batch, with `&ColumnsOf<Row>` and `&mut Emit<Row>`.
/// - `event_time`: a `columns` transform is sent event times; others have a parameter of type `EventTime`.
/// - `metrics(HITS, ..)`: the metrics that it uses.
/// - `config = Type`: its config; the function's first parameter then is `&Type`. It may be left out.
/// - `name = "..."`: another name.
#[proc_macro_attribute]
pub fn transform(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(options).and_then(|options| transform::expand(options, syn::parse(item)?));
    answer(expanded)
}

fn answer(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(|error| error.into_compile_error()).into()
}

/// `HttpStatus` and `http_status` as `http-status`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        match letter {
            '_' => kebab.push('-'),
            letter if letter.is_uppercase() => {
                if !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.extend(letter.to_lowercase());
            }
            letter => kebab.push(letter),
        }
    }
    kebab
}

/// The text of an item's documentation comment, a line a line.
fn documentation(attributes: &[syn::Attribute]) -> String {
    let mut lines = vec![];
    for attribute in attributes {
        if let syn::Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(line), .. }) = &pair.value
        {
            lines.push(line.value().trim().to_owned());
        }
    }
    lines.join("\n").trim().to_owned()
}

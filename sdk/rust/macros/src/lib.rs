//! The macros of pelton-sdk. Each expands to an implementation of one of its traits; all work is done there, in ordinary functions.
//!
//! - [`row`]: `#[derive(Row)]`, a struct whose fields are columns.
//! - [`outputs`]: `#[derive(Outputs)]`, an enum whose variants are outputs.
//! - [`config`]: `#[derive(Config)]`, a transform's config.
//! - [`mod@transform`]: `#[transform]`, a function that a pipeline can name.
//! - [`mod@stateful`]: `#[stateful]`, the same with state and timers; [`state`]: `#[derive(State)]`, [`value`]: `#[derive(StateValue)]`,
//!   [`timer`]: `#[derive(Timer)]`.
//! - [`mod@combine`]: `#[combine]`, an aggregation.
//!
//! Invariant: what the author wrote keeps its place in the source, so that the compiler's errors point at it.

mod combine;
mod config;
mod outputs;
mod row;
mod state;
mod stateful;
mod timer;
mod transform;
mod value;

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

/// Makes a struct of `Value<T>`, `List<T>`, `Map<K, V>` and `Aggregating<A>` fields the state of a stateful transform.
///
/// - `#[state(ttl = "1h")]`: what is written is dropped after that time (`ms`, `s`, `m`, `h`, `d`); with `time = "event"` (the default) or
///   `time = "processing"`.
/// - `#[state(name = "...")]`: another name than the field's; the name is what the state is found by after an update.
/// - `#[state(version = 2)]`: the version of the field's type; 1 if it is not said.
/// - `#[state(version = 2, migrate(1 = from_v1))]`: functions that bring stored values of other versions to this one.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(state::expand))
}

/// Makes a struct that owns its fields a type that state can hold, encoded field by field in their order. `#[state(default)]` and
/// `#[state(default = 5)]` say what a new field is in values that were stored before there was one.
#[proc_macro_derive(StateValue, attributes(state))]
pub fn derive_state_value(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(value::expand))
}

/// Makes an enum without fields the timers of a stateful transform. `#[timer(time = "processing")]` marks one that fires at a time of day;
/// others fire by the watermark. `#[timer(name = "...")]` gives another name than the variant's in kebab-case.
#[proc_macro_derive(Timer, attributes(timer))]
pub fn derive_timer(item: TokenStream) -> TokenStream {
    answer(syn::parse(item).and_then(timer::expand))
}

/// Makes a type a stateful transform, named in kebab-case, from an `impl` with `fn process` and, if it has timers, `fn on_timer`.
///
/// Parameters are known by their names and may be left out: `config: &Config`, `row: Row` (`timer: Timer` in `on_timer`), `state: &mut State`,
/// `timers: &mut Timers<Timer>`, `ctx: &Context`. Both functions answer as `#[transform]` functions do, with elements of one type.
///
/// - `append`: all of the input's columns pass; without it only those of the key do.
/// - `metrics(HITS, ..)`: the metrics that it uses.
/// - `name = "..."`: another name.
#[proc_macro_attribute]
pub fn stateful(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(options).and_then(|options| stateful::expand(options, syn::parse(item)?));
    answer(expanded)
}

/// Makes an `impl CombineFn for Type` an aggregation that a pipeline's `Combine` can name, in kebab-case.
///
/// - `columns`: it implements `add_columns`, which is called instead of `add`.
/// - `metrics(HITS, ..)`: the metrics that it uses.
/// - `version = 2, migrate(1 = from_v1)`: the version of the accumulator's type, 1 if it is not said, and functions that bring accumulators of other
///   versions to this one.
/// - `name = "..."`: another name.
#[proc_macro_attribute]
pub fn combine(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = syn::parse(options).and_then(|options| combine::expand(options, syn::parse(item)?));
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

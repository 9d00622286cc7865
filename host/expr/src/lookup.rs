//! Side inputs in SQL: `lookup('tag', key).column` becomes a column of its own before the expression is compiled.
//!
//! Text in, text out: whoever evaluates the expression first adds the columns that [`Lookup`] names to its rows. A lookup has no type
//! before that, so nothing of it is left for the planner to see.

use crate::expression::ExpressionError;
use crate::sql::{parse_unchecked, position};
use datafusion_sql::sqlparser::ast::{
    self, Expr as Syntax, FunctionArg, FunctionArgExpr, Ident, Value, visit_expressions, visit_expressions_mut,
};
use std::ops::ControlFlow;

/// The name of the function.
pub const LOOKUP: &str = "lookup";

/// A value of a side input that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The side input.
    pub tag: String,
    /// What is looked up, an expression in SQL; absent for side inputs without a key.
    pub key: Option<String>,
    /// Column of the side input.
    pub column: String,
    /// The column that stands for it in the lowered text; the same for the same lookup.
    pub name: String,
    /// Where it stands in the text, in bytes.
    pub offset: Option<usize>,
}

/// An expression without lookups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// SQL over the input's columns and those of `lookups`.
    pub text: String,
    /// Each once.
    pub lookups: Vec<Lookup>,
}

/// Takes the lookups out of an expression in SQL.
pub fn lower_lookups(text: &str) -> Result<Lowered, ExpressionError> {
    if !text.to_lowercase().contains(LOOKUP) {
        return Ok(Lowered { text: text.to_string(), lookups: Vec::new() });
    }
    let mut syntax = parse_unchecked(text)?;
    let mut lookups: Vec<Lookup> = Vec::new();
    // Inner nodes come first, so a lookup inside the key of another is a column by then.
    let lowered = visit_expressions_mut(&mut syntax, |node| match lower(text, node, &lookups) {
        Ok(None) => ControlFlow::Continue(()),
        Ok(Some(lookup)) => {
            if !lookups.iter().any(|known| known.name == lookup.name) {
                lookups.push(lookup);
            }
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break(error),
    });
    if let ControlFlow::Break(error) = lowered {
        return Err(error);
    }
    match visit_expressions(&syntax, |node| call(node).map_or(ControlFlow::Continue(()), ControlFlow::Break)) {
        ControlFlow::Break(function) => Err(ExpressionError::new(format!("`{function}` does not say which column it means"))
            .help("write `lookup('tag', key).column`")
            .at(name_of(&function).and_then(|name| position(text, name)))),
        ControlFlow::Continue(()) if lookups.is_empty() => Ok(Lowered { text: text.to_string(), lookups }),
        ControlFlow::Continue(()) => Ok(Lowered { text: syntax.to_string(), lookups }),
    }
}

/// Replaces a node that reads a column of a lookup.
fn lower(text: &str, node: &mut Syntax, before: &[Lookup]) -> Result<Option<Lookup>, ExpressionError> {
    let Syntax::CompoundFieldAccess { root, access_chain } = node else { return Ok(None) };
    let Some(function) = call(root) else { return Ok(None) };
    let offset = name_of(&function).and_then(|name| position(text, name));
    let wrong = |message: String| ExpressionError::new(message).help("write `lookup('tag', key).column`").at(offset);
    let Some(ast::AccessExpr::Dot(Syntax::Identifier(column))) = access_chain.first().cloned() else {
        return Err(wrong(format!("`{function}` does not say which column it means")));
    };
    let (tag, key) = arguments(&function).ok_or_else(|| wrong(format!("`{function}` does not name a side input")))?;
    if let Some(key) = &key {
        let inner = visit_expressions(key, |part| match part {
            Syntax::Identifier(name) if before.iter().any(|known| known.name == name.value) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        if inner.is_break() {
            let help = "look up the key in a `MapToFields` before this transform";
            return Err(ExpressionError::new("the key of a lookup cannot be looked up itself").help(help).at(offset));
        }
    }
    let key = key.map(|key| key.to_string());
    let name = match &key {
        Some(key) => format!("lookup('{tag}', {key}).{}", column.value),
        None => format!("lookup('{tag}').{}", column.value),
    };
    let own = Ident::with_quote('"', name.clone());
    let rest = access_chain.split_off(1);
    *node = match rest.is_empty() {
        true => Syntax::Identifier(own),
        false => Syntax::CompoundFieldAccess { root: Box::new(Syntax::Identifier(own)), access_chain: rest },
    };
    crate::sql::free_reserved_name(node);
    Ok(Some(Lookup { tag, key, column: column.value, name, offset }))
}

/// The call of `lookup` that a node is.
fn call(node: &Syntax) -> Option<ast::Function> {
    match node {
        Syntax::Function(function) if name_of(function).is_some_and(|name| name.value.eq_ignore_ascii_case(LOOKUP)) => {
            Some(function.clone())
        }
        _ => None,
    }
}

fn name_of(function: &ast::Function) -> Option<&Ident> {
    match function.name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
}

/// The side input and the key.
fn arguments(function: &ast::Function) -> Option<(String, Option<Syntax>)> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let plain = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    });
    let plain: Vec<&Syntax> = plain.collect::<Option<_>>()?;
    let (tag, key) = match plain.as_slice() {
        [tag] => (tag, None),
        [tag, key] => (tag, Some((*key).clone())),
        _ => return None,
    };
    match tag {
        Syntax::Value(value) => match &value.value {
            Value::SingleQuotedString(tag) => Some((tag.clone(), key)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(text: &str) -> (String, Vec<(String, Option<String>, String)>) {
        let Lowered { text, lookups } = lower_lookups(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        (text, lookups.into_iter().map(|lookup| (lookup.tag, lookup.key, lookup.column)).collect())
    }

    #[test]
    fn a_lookup_becomes_a_column() {
        let one = |tag: &str, key: Option<&str>, column: &str| (tag.to_string(), key.map(str::to_string), column.to_string());
        let (text, lookups) = lowered("coalesce(lookup('profiles', user).segment, 'unknown') = x");
        assert_eq!(text, r#"coalesce("lookup('profiles', user).segment", 'unknown') = x"#);
        assert_eq!(lookups, [one("profiles", Some("user"), "segment")]);
        let (text, lookups) = lowered("amount * LOOKUP('rate').value + lookup('rate').value");
        assert_eq!(text, r#"amount * "lookup('rate').value" + "lookup('rate').value""#);
        assert_eq!(lookups, [one("rate", None, "value")]);
        // A path goes on into a struct, and the key is any expression.
        let (text, lookups) = lowered("lookup('p', lower(a || \"b\")).home.city");
        assert_eq!(text, r#""lookup('p', lower(a || ""b"")).home".city"#);
        assert_eq!(lookups, [one("p", Some("lower(a || \"b\")"), "home")]);
        assert_eq!(lower_lookups(&text).unwrap().text, text);
        // A column may have the name.
        assert_eq!(lowered("lookup + 1").0, "lookup + 1");
    }

    #[test]
    fn what_is_no_lookup_is_refused() {
        for (text, message) in [
            ("lookup('a', k)", "does not say which column"),
            ("lookup(a, k).b", "does not name a side input"),
            ("lookup('a', k, l).b", "does not name a side input"),
            ("lookup().b", "does not name a side input"),
            ("lookup('a', lookup('b', k).c).d", "cannot be looked up itself"),
        ] {
            let error = lower_lookups(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error:?}");
            assert!(error.offset.is_some(), "{text}");
        }
    }
}

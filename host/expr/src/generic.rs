//! Beam's generic language (`yaml_mapping.py` of Beam 2.77): exactly a field, an integer within ±2^31, a float such as `-1.5`,
//! a `"string"` without escapes, or one comparison of two of those with `<`, `>`, `<=`, `>=`, `==` or `!=`.
//!
//! Beam's own parser splits greedily and so refuses `<=`, `>=`, `==` and `!=`; that slip is not copied.
//! Comparisons follow Python, as in Beam: null equals null and nothing else, and ordering with a null fails the row.
//! Operands of different kinds, which Python compares as unequal or refuses row by row, are refused here for the whole text.

use crate::expression::ExpressionError;
use crate::program::{self, Program};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::{Expr, Operator, binary_expr, lit};

enum Atom<'a> {
    Field(&'a str),
    Literal(ScalarValue),
}

enum Parsed<'a> {
    One(Atom<'a>),
    Comparison(Atom<'a>, Operator, &'a str, Atom<'a>),
}

pub(crate) fn compile(text: &str, input: &SchemaRef) -> Result<Program, ExpressionError> {
    let (expr, null_fails) = match parse(text)? {
        Parsed::One(atom) => (resolve(text, &atom, input)?.0, None),
        Parsed::Comparison(left, operator, sign, right) => {
            let ((left, left_type), (right, right_type)) = (resolve(text, &left, input)?, resolve(text, &right, input)?);
            if kind(&left_type) != kind(&right_type) && left_type != right_type {
                return Err(ExpressionError::new(format!("{left_type} and {right_type} cannot be compared")));
            }
            let null_fails = match operator {
                Operator::IsNotDistinctFrom | Operator::IsDistinctFrom => None,
                _ => Some(format!("null cannot be compared with {sign}")),
            };
            (binary_expr(left, operator, right), null_fails)
        }
    };
    Program::of(expr, input, null_fails)
}

pub(crate) fn check_syntax(text: &str) -> Result<Vec<String>, ExpressionError> {
    let atoms = match parse(text)? {
        Parsed::One(atom) => vec![atom],
        Parsed::Comparison(left, _, _, right) => vec![left, right],
    };
    let mut names: Vec<String> = Vec::new();
    for atom in atoms {
        if let Atom::Field(name) = atom
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_string());
        }
    }
    Ok(names)
}

fn parse(text: &str) -> Result<Parsed<'_>, ExpressionError> {
    if let Some(atom) = parse_atom(text.trim()) {
        return Ok(Parsed::One(atom));
    }
    // The longer signs first: `<=` begins with `<`.
    let signs = [
        ("<=", Operator::LtEq),
        (">=", Operator::GtEq),
        ("==", Operator::IsNotDistinctFrom),
        ("!=", Operator::IsDistinctFrom),
        ("<", Operator::Lt),
        (">", Operator::Gt),
    ];
    for (sign, operator) in signs {
        for (at, _) in text.match_indices(sign) {
            let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
            if let (Some(left), Some(right)) = (parse_atom(left), parse_atom(right)) {
                return Ok(Parsed::Comparison(left, operator, sign, right));
            }
        }
    }
    let help =
        "a generic expression is a field, a number, a \"string\" or one comparison of two of those; for anything else set `language: sql`";
    Err(ExpressionError::new(format!("`{}` is not a generic expression", text.trim())).help(help))
}

fn parse_atom(text: &str) -> Option<Atom<'_>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let value = text.parse::<i64>().ok().filter(|value| value.abs() <= 1 << 31)?;
        return Some(Atom::Literal(ScalarValue::Int64(Some(value))));
    }
    if let Some((whole, fraction)) = digits.split_once('.')
        && !whole.is_empty()
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return text.parse().ok().map(|value| Atom::Literal(ScalarValue::Float64(Some(value))));
    }
    if let Some(string) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return (!string.contains(['"', '\\'])).then(|| Atom::Literal(ScalarValue::Utf8(Some(string.to_string()))));
    }
    let starts = text.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
    (starts && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')).then_some(Atom::Field(text))
}

fn resolve(text: &str, atom: &Atom<'_>, input: &SchemaRef) -> Result<(Expr, DataType), ExpressionError> {
    match atom {
        Atom::Literal(value) => Ok((lit(value.clone()), value.data_type())),
        Atom::Field(name) => match input.field_with_name(name) {
            Ok(field) => Ok((Expr::Column(Column::new_unqualified(*name)), program::result_type(field.data_type())?)),
            Err(_) => Err(ExpressionError::no_column(name, input).at(text.find(name))),
        },
    }
}

/// What Python compares with each other; types of other kinds compare with their own type only.
fn kind(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        data_type if data_type.is_numeric() => Some("number"),
        DataType::Utf8 => Some("string"),
        _ => None,
    }
    .or(if *data_type == DataType::Null { Some("null") } else { Some("other") })
}

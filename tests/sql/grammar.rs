//! Random expressions over the columns of [`crate::rows`], each in two spellings: ours, and DuckDB's where that differs.
//!
//! A form is a text with `{0}`, `{1}` … for its operands. Where both spell it alike there is one text; otherwise the second is
//! DuckDB's, and says in its own words what our rule is (docs/reference/sql-expressions.md).

use crate::numbers::Numbers;

/// Types that operands and results have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Float,
    Text,
    Bool,
    Time,
    Date,
    Money,
}

/// One expression.
#[derive(Clone, Debug)]
pub struct Pair {
    pub ours: String,
    pub theirs: String,
}

struct Form {
    result: Kind,
    operands: &'static [Kind],
    ours: &'static str,
    theirs: &'static str,
}

const fn same(result: Kind, operands: &'static [Kind], text: &'static str) -> Form {
    Form { result, operands, ours: text, theirs: text }
}

const fn differs(result: Kind, operands: &'static [Kind], ours: &'static str, theirs: &'static str) -> Form {
    Form { result, operands, ours, theirs }
}

use Kind::{Bool, Date, Float, Int, Money, Text, Time};

const FORMS: &[Form] = &[
    // Integers.
    same(Int, &[Int, Int], "({0} + {1})"),
    same(Int, &[Int, Int], "({0} - {1})"),
    same(Int, &[Int, Int], "({0} * {1})"),
    differs(Int, &[Int, Int], "({0} / {1})", "({0} // {1})"),
    same(Int, &[Int, Int], "({0} % {1})"),
    same(Int, &[Int], "(- {0})"),
    same(Int, &[Int], "abs({0})"),
    same(Int, &[Bool, Int, Int], "CASE WHEN {0} THEN {1} ELSE {2} END"),
    same(Int, &[Bool, Int], "CASE WHEN {0} THEN {1} END"),
    same(Int, &[Int, Int, Int, Int], "CASE {0} WHEN {1} THEN {2} ELSE {3} END"),
    same(Int, &[Int, Int], "coalesce({0}, {1})"),
    same(Int, &[Int, Int, Int], "coalesce({0}, {1}, {2})"),
    same(Int, &[Int, Int], "nullif({0}, {1})"),
    same(Int, &[Int, Int], "greatest({0}, {1})"),
    same(Int, &[Int, Int], "least({0}, {1})"),
    same(Int, &[Text], "length({0})"),
    same(Int, &[Text], "CHAR_LENGTH({0})"),
    differs(Int, &[Text], "octet_length({0})", "octet_length(encode({0}))"),
    same(Int, &[Text, Text], "POSITION({0} IN {1})"),
    same(Int, &[Text, Text], "strpos({0}, {1})"),
    same(Int, &[Text], "ascii({0})"),
    differs(Int, &[Float], "CAST({0} AS BIGINT)", "CAST(trunc({0}) AS BIGINT)"),
    differs(Int, &[Float], "TRY_CAST({0} AS BIGINT)", "TRY_CAST(trunc({0}) AS BIGINT)"),
    same(Int, &[Bool], "CAST({0} AS BIGINT)"),
    same(Int, &[Int], "CAST(TRY_CAST({0} AS SMALLINT) AS BIGINT)"),
    same(Int, &[Int], "CAST(CAST({0} AS SMALLINT) AS BIGINT)"),
    same(Int, &[Time], "EXTRACT(YEAR FROM {0})"),
    same(Int, &[Time], "EXTRACT(MONTH FROM {0})"),
    same(Int, &[Time], "EXTRACT(DAY FROM {0})"),
    same(Int, &[Time], "EXTRACT(HOUR FROM {0})"),
    same(Int, &[Time], "EXTRACT(MINUTE FROM {0})"),
    same(Int, &[Time], "EXTRACT(DOW FROM {0})"),
    same(Int, &[Time], "EXTRACT(DOY FROM {0})"),
    same(Int, &[Time], "EXTRACT(WEEK FROM {0})"),
    same(Int, &[Time], "EXTRACT(QUARTER FROM {0})"),
    same(Int, &[Date], "date_part('day', {0})"),
    same(Int, &[Date], "EXTRACT(YEAR FROM {0})"),
    same(Int, &[], "st.a"),
    same(Int, &[], "array_length(l)"),
    same(Int, &[], "l[1]"),
    same(Int, &[], "l[2]"),
    differs(Int, &[Money], "CAST({0} AS BIGINT)", "CAST(trunc({0}) AS BIGINT)"),
    same(Int, &[Int, Int], "({0} & {1})"),
    same(Int, &[Int, Int], "({0} | {1})"),
    // Doubles.
    same(Float, &[Float, Float], "({0} + {1})"),
    same(Float, &[Float, Float], "({0} - {1})"),
    same(Float, &[Float, Float], "({0} * {1})"),
    same(Float, &[Float, Float], "({0} / {1})"),
    same(Float, &[Float, Int], "({0} + {1})"),
    same(Float, &[Int, Float], "({0} * {1})"),
    same(Float, &[Float], "(- {0})"),
    same(Float, &[Float], "abs({0})"),
    same(Float, &[Float], "ceil({0})"),
    same(Float, &[Float], "floor({0})"),
    same(Float, &[Float], "round({0})"),
    same(Float, &[Float], "trunc({0})"),
    same(Float, &[Float], "sqrt(abs({0}))"),
    same(Float, &[Float], "ln(abs({0}) + 1.5)"),
    same(Float, &[Float], "log10(abs({0}) + 1.5)"),
    same(Float, &[Float], "exp(least({0}, 3.5))"),
    same(Float, &[Float], "power(abs({0}), 0.5)"),
    same(Float, &[Float], "sin({0})"),
    same(Float, &[Float], "atan({0})"),
    same(Float, &[Int], "CAST({0} AS DOUBLE)"),
    same(Float, &[Bool, Float, Float], "CASE WHEN {0} THEN {1} ELSE {2} END"),
    same(Float, &[Float, Float], "coalesce({0}, {1})"),
    same(Float, &[Float, Float], "nullif({0}, {1})"),
    same(Float, &[], "CAST(n AS DOUBLE)"),
    same(Float, &[], "TRY_CAST(num AS DOUBLE)"),
    same(Float, &[], "CAST(num AS DOUBLE)"),
    // Strings.
    same(Text, &[Text, Text], "({0} || {1})"),
    same(Text, &[Text], "upper({0})"),
    same(Text, &[Text], "lower({0})"),
    same(Text, &[Text], "trim({0})"),
    same(Text, &[Text], "ltrim({0})"),
    same(Text, &[Text], "rtrim({0})"),
    same(Text, &[Text], "TRIM(BOTH 'a' FROM {0})"),
    same(Text, &[Text], "TRIM(LEADING 'b' FROM {0})"),
    same(Text, &[Text], "btrim({0}, 'ab')").or("trim({0}, 'ab')"),
    same(Text, &[Text], "SUBSTRING({0} FROM 2 FOR 2)"),
    same(Text, &[Text], "substr({0}, 2)"),
    same(Text, &[Text], "substr({0}, 3, 4)"),
    same(Text, &[Text, Text], "concat({0}, {1})"),
    same(Text, &[Text, Text, Text], "concat({0}, {1}, {2})"),
    same(Text, &[Text, Text], "concat_ws('-', {0}, {1})"),
    same(Text, &[Text], "replace({0}, 'a', 'xy')"),
    same(Text, &[Text], "reverse({0})"),
    same(Text, &[Text], "lpad({0}, 5, 'xy')"),
    same(Text, &[Text], "rpad({0}, 5, '_')"),
    same(Text, &[Text], "left({0}, 2)"),
    same(Text, &[Text], "right({0}, 2)"),
    same(Text, &[Text], "left({0}, -1)"),
    same(Text, &[Text], "repeat({0}, 2)"),
    same(Text, &[Text], "split_part({0}, 'b', 1)"),
    same(Text, &[Text], "split_part({0}, ',', 2)"),
    same(Text, &[Text], "translate({0}, 'ab', 'xy')"),
    same(Text, &[Text], "regexp_replace({0}, '[ab]+', 'Q')"),
    same(Text, &[Text], "regexp_replace({0}, 'b', 'Q', 'g')"),
    same(Text, &[Int], "CAST({0} AS VARCHAR)"),
    same(Text, &[Bool], "CAST({0} AS VARCHAR)"),
    same(Text, &[Date], "CAST({0} AS VARCHAR)"),
    same(Text, &[Bool, Text, Text], "CASE WHEN {0} THEN {1} ELSE {2} END"),
    same(Text, &[Text, Text], "coalesce({0}, {1})"),
    same(Text, &[Text, Text], "nullif({0}, {1})"),
    same(Text, &[Text, Text], "greatest({0}, {1})"),
    same(Text, &[], "st.b"),
    same(Text, &[], "chr(65)"),
    // Booleans.
    same(Bool, &[Int, Int], "({0} < {1})"),
    same(Bool, &[Int, Int], "({0} >= {1})"),
    same(Bool, &[Int, Int], "({0} = {1})"),
    same(Bool, &[Int, Int], "({0} <> {1})"),
    same(Bool, &[Int, Float], "({0} > {1})"),
    same(Bool, &[Float, Float], "({0} <= {1})"),
    same(Bool, &[Float, Float], "({0} = {1})"),
    same(Bool, &[Text, Text], "({0} < {1})"),
    same(Bool, &[Text, Text], "({0} = {1})"),
    same(Bool, &[Time, Time], "({0} < {1})"),
    same(Bool, &[Time, Date], "({0} >= {1})"),
    same(Bool, &[Date, Date], "({0} = {1})"),
    same(Bool, &[Money, Money], "({0} < {1})"),
    same(Bool, &[Money, Int], "({0} >= {1})"),
    same(Bool, &[Bool, Bool], "({0} AND {1})"),
    same(Bool, &[Bool, Bool], "({0} OR {1})"),
    same(Bool, &[Bool], "(NOT {0})"),
    same(Bool, &[Bool], "({0} IS TRUE)"),
    same(Bool, &[Bool], "({0} IS NOT FALSE)"),
    same(Bool, &[Bool], "({0} IS NULL)"),
    same(Bool, &[Int], "({0} IS NULL)"),
    same(Bool, &[Text], "({0} IS NOT NULL)"),
    same(Bool, &[Int, Int], "({0} IS DISTINCT FROM {1})"),
    same(Bool, &[Text, Text], "({0} IS NOT DISTINCT FROM {1})"),
    same(Bool, &[Int, Int, Int], "({0} IN ({1}, {2}, NULL))"),
    same(Bool, &[Int, Int, Int], "({0} NOT IN ({1}, {2}))"),
    same(Bool, &[Text, Text], "({0} IN ({1}, 'a', ''))"),
    same(Bool, &[Int, Int, Int], "({0} BETWEEN {1} AND {2})"),
    same(Bool, &[Text, Text, Text], "({0} NOT BETWEEN {1} AND {2})"),
    same(Bool, &[Text], "({0} LIKE '%a_')"),
    same(Bool, &[Text], "({0} NOT LIKE 'A%')"),
    same(Bool, &[Text], "({0} ILIKE '%B%')"),
    same(Bool, &[Text, Text], "({0} LIKE {1})"),
    same(Bool, &[Text, Text], "starts_with({0}, {1})"),
    same(Bool, &[Text, Text], "ends_with({0}, {1})"),
    same(Bool, &[Text, Text], "contains({0}, {1})"),
    differs(Bool, &[Text], "regexp_like({0}, '^a.*b')", "regexp_matches({0}, '^a.*b')"),
    differs(Bool, &[Text], "({0} ~ '[0-9]')", "regexp_matches({0}, '[0-9]')"),
    differs(Bool, &[Int], "array_has(l, {0})", "list_contains(l, {0})"),
    same(Bool, &[Bool, Bool, Bool], "CASE WHEN {0} THEN {1} ELSE {2} END"),
    same(Bool, &[Bool, Bool], "coalesce({0}, {1})"),
    same(Bool, &[Int], "CAST({0} AS BOOLEAN)"),
    // Instants and dates.
    same(Time, &[Time], "date_trunc('hour', {0})"),
    same(Time, &[Time], "date_trunc('day', {0})"),
    same(Time, &[Time], "date_trunc('week', {0})"),
    same(Time, &[Time], "date_trunc('month', {0})"),
    same(Time, &[Time], "date_trunc('quarter', {0})"),
    same(Time, &[Time], "({0} + INTERVAL '3 hours')"),
    same(Time, &[Time], "({0} - INTERVAL '1 day')"),
    same(Time, &[Time], "({0} + INTERVAL '1 month')"),
    same(Time, &[Bool, Time, Time], "CASE WHEN {0} THEN {1} ELSE {2} END"),
    same(Time, &[Time, Time], "coalesce({0}, {1})"),
    same(Time, &[Date], "CAST({0} AS TIMESTAMP)"),
    same(Time, &[], "TIMESTAMP '2024-02-29 12:34:56.789'"),
    same(Date, &[Time], "CAST({0} AS DATE)"),
    same(Date, &[Date, Date], "coalesce({0}, {1})"),
    same(Date, &[], "DATE '2023-12-31'"),
    differs(Date, &[Date], "({0} + INTERVAL '40 days')", "CAST({0} + INTERVAL '40 days' AS DATE)"),
    // Decimals.
    same(Money, &[Money], "(- {0})"),
    same(Money, &[Money, Money], "coalesce({0}, {1})"),
    same(Money, &[Money, Money], "({0} + {1})"),
    same(Money, &[Money], "abs({0})"),
];

impl Form {
    const fn or(self, theirs: &'static str) -> Form {
        Form { theirs, ..self }
    }
}

/// Columns and literals.
const LEAVES: &[(Kind, &str, &str)] = &[
    (Int, "i", "i"),
    (Int, "j", "j"),
    (Int, "big", "big"),
    (Int, "0", "0::BIGINT"),
    (Int, "3", "3::BIGINT"),
    (Int, "1000000007", "1000000007::BIGINT"),
    (Float, "f", "f"),
    (Float, "g", "g"),
    (Float, "2.5", "2.5::DOUBLE"),
    (Float, "0.0", "0.0::DOUBLE"),
    (Text, "s", "s"),
    (Text, "u", "u"),
    (Text, "'ab'", "'ab'"),
    (Text, "''", "''"),
    (Bool, "b", "b"),
    (Bool, "TRUE", "TRUE"),
    (Bool, "NULL", "NULL::BOOLEAN"),
    (Time, "ts", "ts"),
    (Date, "d", "d"),
    (Money, "n", "n"),
];

/// A random expression of a kind.
pub fn expression(numbers: &mut Numbers, kind: Kind, depth: usize) -> Pair {
    let forms: Vec<&Form> = FORMS.iter().filter(|form| form.result == kind).collect();
    if depth == 0 || (depth < 3 && numbers.once_in(4)) {
        let leaves: Vec<_> = LEAVES.iter().filter(|leaf| leaf.0 == kind).collect();
        let (_, ours, theirs) = numbers.pick(&leaves);
        return Pair { ours: ours.to_string(), theirs: theirs.to_string() };
    }
    let form = numbers.pick(&forms);
    let mut pair = Pair { ours: form.ours.into(), theirs: form.theirs.into() };
    for (number, operand) in form.operands.iter().enumerate() {
        let inner = expression(numbers, *operand, depth - 1);
        pair.ours = pair.ours.replace(&format!("{{{number}}}"), &inner.ours);
        pair.theirs = pair.theirs.replace(&format!("{{{number}}}"), &inner.theirs);
    }
    pair
}

/// Any kind.
pub fn any(numbers: &mut Numbers) -> Pair {
    let kind = *numbers.pick(&[Int, Int, Float, Text, Text, Bool, Bool, Time, Date, Money]);
    let depth = 1 + numbers.below(3);
    expression(numbers, kind, depth)
}

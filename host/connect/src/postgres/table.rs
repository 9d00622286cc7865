//! The table as the server describes it, and which of its columns take which columns of the rows.
//!
//! Everything that can be known before the first row is checked here: columns that are not there, types that do not hold ours, columns that
//! must have a value and get none, a key without an index, missing rights.

use super::configs::WriteConfig;
use super::encode::{Column, Kind};
use super::load::{Load, PANE, RESERVED, Upsert, WINDOW, quote};
use super::session::Session;
use crate::ConnectError;
use crate::format::schema;
use arrow::datatypes::{DataType, Schema};
use pelton_core::ROW_KIND;

/// How rows become tuples, and how those get into the table.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Columns that are written, in their order.
    pub columns: Vec<Column>,
    /// Where they go.
    pub load: Load,
    /// Number of the column `row_kind` in the rows.
    pub row_kind: Option<usize>,
}

/// A column of the table.
struct Existing {
    name: String,
    /// `None`: a type that nothing of ours goes into.
    kind: Option<Kind>,
    type_name: String,
    required: bool,
    computed: bool,
    has_default: bool,
}

/// Finds the table, or creates it, and compares it with the rows.
pub async fn plan(session: &Session, config: &WriteConfig, rows: &Schema, windowed: bool) -> Result<Plan, ConnectError> {
    let mut found = find(session, config).await?;
    if found.is_none() && config.create {
        let statement = create_statement(config, rows, windowed)?;
        let created = session.run(&format!("create the table {}", config.table), &statement).await;
        // Two may create it at once, and PostgreSQL tells one of them of a duplicate.
        found = find(session, config).await?;
        if found.is_none() {
            created?;
        }
    }
    let Some((oid, name)) = found else {
        let place = config.schema.as_ref().map_or(String::new(), |schema| format!(" in schema `{schema}`"));
        return Err(ConnectError::user(
            format!("no table `{}`{place} in {}", config.table, session.address),
            "create it, or write `create: if_missing`; names are taken as written, upper and lower case",
        ));
    };
    check_session(session).await?;
    check_rights(session, oid, &name, config.key.is_some()).await?;
    let existing = describe(session, oid).await?;
    let refused = |message: String, help: String| Err(ConnectError::user(format!("table {name} in {}: {message}", session.address), help));
    let columns = match match_columns(&existing, rows, config) {
        Ok(columns) => columns,
        Err((message, help)) => return refused(message, help),
    };
    let upsert = match &config.key {
        None => None,
        Some(key) => {
            if !has_index(session, oid, key).await? {
                let list = key.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ");
                let help = format!("CREATE UNIQUE INDEX ON {name} ({list})");
                return refused(format!("no primary key or unique index of exactly the columns of `key` ({list})"), help);
            }
            let panes = [WINDOW, PANE].iter().all(|wanted| existing.iter().any(|column| column.name == *wanted));
            Some(Upsert { key: key.clone(), panes })
        }
    };
    let load = Load { table: name, columns: columns.iter().map(|column| column.name.clone()).collect(), upsert };
    Ok(Plan { columns, load, row_kind: rows.index_of(ROW_KIND).ok() })
}

async fn find(session: &Session, config: &WriteConfig) -> Result<Option<(u32, String)>, ConnectError> {
    let written = match &config.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&config.table)),
        None => quote(&config.table),
    };
    let query = "SELECT c.oid, n.nspname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass($1::text)";
    let found = session.query("look for the table", query, &[&written]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (oid, schema, kind): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
    match kind.as_str() {
        "r" | "p" => Ok(Some((oid, format!("{}.{}", quote(&schema), quote(&config.table))))),
        _ => Err(ConnectError::user(
            format!("{written} in {} is no table", session.address),
            "name a table; views and foreign tables are not written to",
        )),
    }
}

async fn check_session(session: &Session) -> Result<(), ConnectError> {
    let query = "SELECT current_setting('server_encoding'), has_database_privilege(current_database(), 'TEMP')";
    let row = &session.query("ask for the encoding", query, &[]).await?[0];
    let (encoding, may_stage): (String, bool) = (row.get(0), row.get(1));
    if encoding != "UTF8" {
        let message = format!("the database {} is encoded as {encoding}, which cannot hold every string", session.address);
        return Err(ConnectError::user(message, "use a database with the encoding UTF8"));
    }
    match may_stage {
        true => Ok(()),
        false => Err(ConnectError::user(
            format!("the user `{}` may not create temporary tables in {}", session.address.user(), session.address),
            format!("GRANT TEMPORARY ON DATABASE {} TO {}", quote(session.address.database()), quote(session.address.user())),
        )),
    }
}

async fn check_rights(session: &Session, oid: u32, name: &str, upsert: bool) -> Result<(), ConnectError> {
    let wanted: &[&str] = if upsert { &["SELECT", "INSERT", "UPDATE", "DELETE"] } else { &["INSERT"] };
    for right in wanted {
        let row = &session.query("ask for rights", "SELECT has_table_privilege($1::oid, $2::text)", &[&oid, right]).await?[0];
        if !row.get::<_, bool>(0) {
            return Err(ConnectError::user(
                format!("the user `{}` has no right to {right} on {name} in {}", session.address.user(), session.address),
                format!("GRANT {} ON {name} TO {}", wanted.join(", "), quote(session.address.user())),
            ));
        }
    }
    Ok(())
}

async fn describe(session: &Session, oid: u32) -> Result<Vec<Existing>, ConnectError> {
    let query = "SELECT a.attname::text, t.typname::text, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef,
            a.attgenerated <> '' OR a.attidentity = 'a', a.attidentity <> '', e.typname::text
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
        WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = session.query("describe the table", query, &[&oid]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let (type_name, modifier, element): (String, i32, Option<String>) = (row.get(1), row.get(2), row.get(8));
            let kind = match &element {
                Some(element) => Kind::of(element, modifier).map(|element| Kind::Array(Box::new(element))),
                None => Kind::of(&type_name, modifier),
            };
            Existing {
                name: row.get(0),
                kind,
                type_name: row.get(3),
                required: row.get(4),
                computed: row.get(6),
                has_default: row.get::<_, bool>(5) || row.get::<_, bool>(7),
            }
        })
        .collect())
}

/// A unique index that `ON CONFLICT` takes: of exactly these columns, of all rows, checked at once.
async fn has_index(session: &Session, oid: u32, key: &[String]) -> Result<bool, ConnectError> {
    let query = "SELECT array_agg(a.attname::text) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = $1::oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        GROUP BY i.indexrelid";
    let rows = session.query("look for a unique index", query, &[&oid]).await?;
    let mut wanted = key.to_vec();
    wanted.sort();
    Ok(rows.iter().any(|row| {
        let mut columns: Vec<String> = row.get(0);
        columns.sort();
        columns == wanted
    }))
}

/// The table's column for each of ours; what is wrong and what to do otherwise.
fn match_columns(existing: &[Existing], rows: &Schema, config: &WriteConfig) -> Result<Vec<Column>, (String, String)> {
    let key = config.key.as_deref().unwrap_or_default();
    if let Some(absent) = key.iter().find(|column| rows.index_of(column).is_err()) {
        let names = rows.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        return Err((format!("the rows have no column `{absent}`, which `key` names"), format!("columns of the rows: {names}")));
    }
    let mut columns = Vec::new();
    for (index, field) in rows.fields().iter().enumerate().filter(|(_, field)| field.name() != ROW_KIND) {
        let name = field.name();
        if !key.is_empty() && RESERVED.contains(&name.as_str()) {
            return Err((format!("`{name}` is a name of Pelton's own"), "rename the column of the rows".into()));
        }
        let Some(column) = existing.iter().find(|column| column.name == *name) else {
            let names = existing.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err((
                format!("no column `{name}`, which the rows have"),
                format!("columns of the table: {names}; drop the others with MapToFields"),
            ));
        };
        if column.computed {
            return Err((format!("column `{name}` is computed by PostgreSQL"), "drop it from the rows with MapToFields".into()));
        }
        let ours = schema::name(field.data_type());
        let wanted = || {
            format!("ALTER TABLE … ALTER COLUMN {} TYPE {}, or convert the column of the rows", quote(name), sql_type(field.data_type()))
        };
        let Some(kind) = column.kind.clone().filter(|kind| kind.takes(field.data_type())) else {
            return Err((format!("column `{name}` is {}, which takes no {ours}", column.type_name), wanted()));
        };
        columns.push(Column { index, name: name.clone(), kind, required: column.required, key: key.contains(name) });
    }
    let unfilled = |column: &&Existing| column.required && !column.has_default && !column.computed && rows.index_of(&column.name).is_err();
    if let Some(column) = existing.iter().find(unfilled) {
        let name = &column.name;
        return Err((
            format!("column `{name}` must have a value, and the rows have no such column"),
            format!("add `{name}` to the rows, or give it a default"),
        ));
    }
    Ok(columns)
}

fn create_statement(config: &WriteConfig, rows: &Schema, windowed: bool) -> Result<String, ConnectError> {
    let fields = rows.fields().iter().filter(|field| field.name() != ROW_KIND);
    let mut columns: Vec<String> = fields.map(|field| format!("{} {}", quote(field.name()), sql_type(field.data_type()))).collect();
    if let Some(key) = &config.key {
        if windowed {
            columns.push(format!("{WINDOW} timestamptz"));
            columns.push(format!("{PANE} bigint"));
        }
        columns.push(format!("PRIMARY KEY ({})", key.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")));
    }
    let schema = config.schema.as_ref().map_or(String::new(), |schema| format!("{}.", quote(schema)));
    Ok(format!("CREATE TABLE IF NOT EXISTS {schema}{} ({})", quote(&config.table), columns.join(", ")))
}

/// The type that holds every value of ours.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint".into(),
        DataType::UInt16 | DataType::Int32 => "integer".into(),
        DataType::UInt32 | DataType::Int64 => "bigint".into(),
        DataType::UInt64 => "numeric(20,0)".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::List(item) | DataType::LargeList(item) => match sql_type(item.data_type()) {
            nested if nested == "jsonb" || nested.ends_with("[]") => "jsonb".into(),
            item => format!("{item}[]"),
        },
        DataType::Struct(_) | DataType::Map(..) => "jsonb".into(),
        _ => "text".into(),
    }
}

//! What a server or a connection says when it fails, as an error by who must act.

use super::address::Address;
use crate::ConnectError;
use std::error::Error as _;
use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// A failure while connecting.
pub fn connecting(address: &Address, error: &Error) -> ConnectError {
    let Some(db) = error.as_db_error() else {
        let reason = reason(error);
        let message = format!("cannot reach PostgreSQL at {address}: {reason}");
        return match ["TLS", "SSL", "certificate", "authentication", "password"].iter().any(|word| reason.contains(word)) {
            true => ConnectError::user(message, "see `sslmode` and `sslrootcert` in `connection_properties`, and `password`"),
            false => ConnectError::external(message),
        };
    };
    let (user, said) = (address.user(), db.message());
    match db.code().code() {
        code if code.starts_with("28") => ConnectError::user(
            format!("PostgreSQL at {address} refuses the user `{user}`: {said}"),
            "correct `username` and `password`, or the server's pg_hba.conf",
        ),
        "3D000" => ConnectError::user(format!("PostgreSQL at {address}: {said}"), "correct the database in `url`, or create it"),
        _ => ConnectError::external(format!("PostgreSQL at {address} refuses a connection: {said}")),
    }
}

/// A failure of a statement; `doing` continues "cannot".
pub fn doing(address: &Address, doing: &str, error: &Error) -> ConnectError {
    let Some(db) = error.as_db_error() else {
        return ConnectError::external(format!("cannot {doing} in {address}: {}", reason(error)));
    };
    let message = format!("cannot {doing} in {address}: {}", said(db));
    match db.code().code() {
        code if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => ConnectError::Data { message },
        code if code.starts_with("42501") => ConnectError::user(message, format!("grant it to the user `{}`", address.user())),
        code if code.starts_with("42") || code.starts_with("3") || code.starts_with("0A") => {
            ConnectError::user(message, "the table may have changed since the pipeline started; compare it with the rows' columns")
        }
        _ => ConnectError::external(message),
    }
}

fn said(db: &DbError) -> String {
    let more = [db.detail(), db.where_()].into_iter().flatten().map(|more| format!("; {}", more.replace('\n', " "))).collect::<String>();
    format!("{} ({}){more}", db.message(), db.code().code())
}

/// The innermost reason: the client's own words are general.
fn reason(error: &Error) -> String {
    let mut reason = error.to_string();
    let mut inner = error.source();
    while let Some(source) = inner {
        reason = source.to_string();
        inner = source.source();
    }
    reason
}

//! What is refused before the first row, and how it is said.

use crate::support::{batch, config, runtime, sink};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::SchemaRef;
use pelton_tests::broker::free_ports;
use pelton_tests::postgres::{PASSWORD, Server};
use serde_json::{Value, json};
use std::sync::Arc;

fn schema() -> SchemaRef {
    let id = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    batch(vec![("id", id), ("name", Arc::new(StringArray::from(vec!["a"]))), ("price", Arc::new(Float64Array::from(vec![1.0])))]).schema()
}

async fn refusal(config: &Value) -> String {
    let Err(error) = sink(config, schema()).await else { panic!("{config} was taken") };
    let said = format!("{error} | {}", error.help().unwrap_or_default());
    assert!(!said.contains(PASSWORD) && !said.contains("hunter2"), "{said}");
    said
}

#[test]
fn tables_that_do_not_fit() {
    let server = Server::shared();
    let database = server.database();
    let cases = [
        ("", json!({}), "no table `t0` in 127.0.0.1"),
        ("", json!({"schema": "nowhere"}), "no table `t1` in schema `nowhere`"),
        ("CREATE VIEW t2 AS SELECT 1 AS id", json!({}), "is no table"),
        ("CREATE TABLE t3 (id bigint, name text)", json!({}), "no column `price`, which the rows have | columns of the table: id, name"),
        (
            "CREATE TABLE t4 (id bigint, name integer, price float8)",
            json!({}),
            "column `name` is integer, which takes no string | ALTER TABLE … ALTER COLUMN \"name\" TYPE text",
        ),
        ("CREATE TABLE t5 (id bigint, name text, price real)", json!({}), "column `price` is real, which takes no double"),
        (
            "CREATE TABLE t6 (id bigint, name text, price float8, at timestamptz NOT NULL)",
            json!({}),
            "column `at` must have a value, and the rows have no such column",
        ),
        (
            "CREATE TABLE t7 (id bigint GENERATED ALWAYS AS IDENTITY, name text, price float8)",
            json!({}),
            "column `id` is computed by PostgreSQL",
        ),
        (
            "CREATE TABLE t8 (id bigint, name text, price float8)",
            json!({"mode": "upsert", "key": ["id"]}),
            "no primary key or unique index of exactly the columns of `key` (\"id\") | CREATE UNIQUE INDEX ON \"public\".\"t8\" (\"id\")",
        ),
        (
            "CREATE TABLE t9 (id bigint, name text, price float8, UNIQUE (id, name), UNIQUE (name) DEFERRABLE)",
            json!({"mode": "upsert", "key": ["name"]}),
            "no primary key or unique index",
        ),
        ("", json!({"mode": "upsert", "key": ["sku"], "create": "if_missing"}), "\"sku\""),
        ("CREATE TABLE t11 (id bigint, name text, price point)", json!({}), "column `price` is point, which takes no double"),
    ];
    runtime().block_on(async {
        for (index, (setup, more, expected)) in cases.into_iter().enumerate() {
            if !setup.is_empty() {
                server.psql(&database, setup);
            }
            let said = refusal(&config(server.port(), &database, &format!("t{index}"), more)).await;
            assert!(said.contains(expected), "t{index}: {said}");
        }
        // Defaults, identity and more columns are no obstacle, and unique in another order is.
        server.psql(&database, "CREATE TABLE fits (n bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT now(), more text, price float8, name text, id bigint, UNIQUE (name, id))");
        sink(&config(server.port(), &database, "fits", json!({"mode": "upsert", "key": ["id", "name"]})), schema()).await.unwrap();
    });
}

#[test]
fn servers_that_cannot_be_used() {
    let server = Server::shared();
    let database = server.database();
    server.psql(&database, "CREATE TABLE t (id bigint, name text, price float8); CREATE ROLE reader LOGIN PASSWORD 'hunter2'");
    server.psql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    server.psql("latin", "CREATE TABLE t (id bigint, name text, price float8)");
    let [closed] = free_ports();
    let with = |more: Value| config(server.port(), &database, "t", more);
    runtime().block_on(async {
        for (config, expected) in [
            (with(json!({"password": "hunter2"})), "refuses the user `tester`: password authentication failed"),
            (config(server.port(), "nodb", "t", json!({})), "database \"nodb\" does not exist"),
            (config(closed, &database, "t", json!({})), "cannot reach PostgreSQL at 127.0.0.1:"),
            (config(server.port(), "latin", "t", json!({})), "is encoded as LATIN1"),
            (with(json!({"username": "reader", "password": "hunter2"})), "the user `reader` has no right to INSERT on \"public\".\"t\""),
            (with(json!({"connection_properties": "sslmode=verify-full"})), "certificate"),
            (
                with(json!({"connection_properties": {"sslmode": "verify-full", "sslrootcert": "/nowhere.pem"}})),
                "`sslrootcert` /nowhere.pem cannot be used",
            ),
            (with(json!({"connection_init_sql": ["SET nonsense = 1"]})), "cannot run `connection_init_sql`"),
        ] {
            let said = refusal(&config).await;
            assert!(said.contains(expected), "{said}");
        }
        let certificate = server.certificate().display().to_string();
        for mode in ["verify-ca", "verify-full", "require", "disable"] {
            let config = with(json!({"connection_properties": {"sslmode": mode, "sslrootcert": certificate}}));
            drop(sink(&config, schema()).await.unwrap_or_else(|error| panic!("{mode}: {error}")));
        }
        // Through JDBC's spelling too; the certificate is not for this name of the same host.
        let mut config = with(json!({"connection_properties": {"sslmode": "verify-full", "sslrootcert": certificate}}));
        config["url"] = json!(format!("jdbc:postgresql://127.1:{}/{database}", server.port()));
        let said = refusal(&config).await;
        assert!(said.contains("certificate"), "{said}");
        config["connection_properties"]["sslmode"] = json!("verify-ca");
        sink(&config, schema()).await.unwrap();
    });
}

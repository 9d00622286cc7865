"""Evaluates SQL on DuckDB, one request after the other, in one process.

Reads a request a line on standard input and answers a line on standard output, both JSON:

    {"tables": {"t": [["rid BIGINT", "i BIGINT", …], [[1, 2], …]]}, "query": "SELECT …"}
    {"answers": [{"names": […], "rows": [[…], …]} | {"error": "…"}]}

    {"tables": …, "expressions": ["i + 1", …]}
    {"answers": [[value | {"error": "…"}, … one a row of `t`, in the order of `rid`], …]}

Values: null, booleans, strings and integers as they are; {"f": repr} a double, {"t": microseconds} an instant, {"d": days} a date,
{"n": text} a decimal, [..] a list, {"r": {..}} a struct. An expression that fails over the table is evaluated row by row.
"""

import datetime
import decimal
import json
import sys

import duckdb

EPOCH = datetime.datetime(1970, 1, 1)


def encode(value):
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return {"f": repr(value)}
    if isinstance(value, datetime.datetime):
        delta = value.replace(tzinfo=None) - EPOCH
        return {"t": (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds}
    if isinstance(value, datetime.date):
        return {"d": value.toordinal() - EPOCH.toordinal()}
    if isinstance(value, decimal.Decimal):
        return {"n": format(value.normalize(), "f")}
    if isinstance(value, (list, tuple)):
        return [encode(inner) for inner in value]
    if isinstance(value, dict):
        return {"r": {key: encode(inner) for key, inner in value.items()}}
    return {"o": repr(value)}


def fill(connection, tables):
    for name, (columns, rows) in tables.items():
        connection.execute(f'CREATE OR REPLACE TABLE "{name}" ({", ".join(columns)})')
        if rows:
            marks = ", ".join("?" for _ in columns)
            connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)


def ask(connection, query):
    return [[encode(value) for value in row] for row in connection.execute(query).fetchall()]


def query(connection, text):
    try:
        rows = ask(connection, text)
        return {"names": [column[0] for column in connection.description], "rows": rows}
    except duckdb.Error as error:
        return {"error": str(error).splitlines()[0]}


def expression(connection, text, rows):
    try:
        return [row[0] for row in ask(connection, f"SELECT ({text}) FROM t ORDER BY rid")]
    except duckdb.Error:
        pass
    values = []
    for rid in rows:
        try:
            # Materialised, or a cast of a field is evaluated for all rows before the filter.
            one = f"WITH one AS MATERIALIZED (SELECT * FROM t WHERE rid = {rid}) SELECT ({text}) FROM one"
            values.append(ask(connection, one)[0][0])
        except duckdb.Error as error:
            values.append({"error": str(error).splitlines()[0]})
    return values


def main():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        fill(connection, request["tables"])
        if "expressions" in request:
            rows = [row[0] for row in request["tables"]["t"][1]]
            answers = [expression(connection, text, rows) for text in request["expressions"]]
        else:
            answers = [query(connection, request["query"])]
        print(json.dumps({"answers": answers}), flush=True)


if __name__ == "__main__":
    main()

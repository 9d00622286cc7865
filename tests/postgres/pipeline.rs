//! The binary, from a pipeline file to a table.

use crate::proxy::{Cut, Proxy};
use pelton_tests::life::newest_manifest;
use pelton_tests::pelton::{Said, json_rows, pelton, wait_for};
use pelton_tests::postgres::{PASSWORD, Server, USER};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The part that both pipelines share.
const TABLE: &str = r#"
        url: "postgresql://127.0.0.1:PORT/DATABASE"
        username: USER
        password: "${secret:env:PELTON_TEST_PASSWORD}"
"#;

const REFUSING: &str = r#"
pipeline:
  transforms:
    - type: Create
      name: Rows
      config: {elements: [{id: 1, name: abc}, {id: 2, name: abcd}, {id: 3, name: xyz}]}
    - type: WriteToPostgres
      name: Table
      input: Rows
      config:TABLE
        table: short
        error_handling: {output: errors}
    - type: WriteToJson
      name: Errors
      input: Table.errors
      config: {path: "FOLDER/errors"}
"#;

/// Two tables and files, so that the database decides and the files follow.
const COUNTING: &str = r#"
pipeline:
  transforms:
    - type: GenerateEvents
      name: Purchases
      config: {kind: transactions, count: 12000, seed: 4, devices: 50, rate: RATE, interval: 1ms}
    - type: WriteToPostgres
      name: All
      input: Purchases
      config:TABLE
        table: purchases
        create: if_missing
    - type: WriteToPostgres
      name: Newest
      input: Purchases
      config:TABLE
        table: customers
        create: if_missing
        mode: upsert
        key: [customer_id]
    - type: WriteToJson
      name: Copy
      input: Purchases
      config: {path: "FOLDER/copy"}
options:
  pelton: {name: purchases, delivery: DELIVERY, checkpoint: {interval: INTERVAL}}
"#;

struct Files {
    folder: tempfile::TempDir,
    pipeline: PathBuf,
}

fn files(server: &Server, database: &str, text: &str) -> Files {
    files_at(server.port(), database, text)
}

fn files_at(port: u16, database: &str, text: &str) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    let text = text.replace("TABLE", TABLE.trim_end()).replace("PORT", &port.to_string()).replace("DATABASE", database);
    std::fs::write(&pipeline, text.replace("USER", USER).replace("FOLDER", &folder.path().display().to_string())).unwrap();
    Files { folder, pipeline }
}

fn command(pipeline: &Path, more: &[&str], password: &str) -> Command {
    let mut command = pelton(&["run", pipeline.to_str().unwrap(), "--quiet", "--parallelism", "2"]);
    command.args(more).env("PELTON_TEST_PASSWORD", password);
    command
}

/// From now on the events come as fast as they can; they are the same.
fn hurry(files: &Files, rate: &str) {
    let text = std::fs::read_to_string(&files.pipeline).unwrap();
    assert!(text.contains(&format!("rate: {rate},")));
    std::fs::write(&files.pipeline, text.replace(&format!("rate: {rate},"), "rate: 1000000,")).unwrap();
}

fn run(pipeline: &Path, more: &[&str], password: &str) -> Said {
    command(pipeline, more, password).output().unwrap().into()
}

#[test]
fn refused_rows_go_to_the_error_output_and_a_password_is_never_shown() {
    let server = Server::shared();
    let database = server.database();
    let files = files(&server, &database, REFUSING);
    let said = run(&files.pipeline, &[], "wrong-password");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err.contains("refuses the user `tester`: password authentication failed") && !said.err.contains("wrong-password"),
        "{said:?}"
    );
    let said = run(&files.pipeline, &[], PASSWORD);
    assert!(said.code == 2 && said.err.contains("no table `short`"), "{said:?}");

    server.psql(&database, "CREATE TABLE short (id integer, name varchar(3))");
    let said = run(&files.pipeline, &[], PASSWORD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(server.psql(&database, "SELECT * FROM short ORDER BY id"), "1|abc\n3|xyz");
    let errors = json_rows(&files.folder.path().join("errors"));
    assert_eq!(errors.len(), 1);
    assert_eq!((&errors[0]["element"]["id"], &errors[0]["msg"]), (&2.into(), &"column `name`: text of more than 3 characters".into()));
}

/// The process dies by `kill -9` while it writes, twice, and a third one ends the work.
#[test]
fn each_row_is_in_the_tables_once_whenever_the_process_is_killed() {
    let server = Server::shared();
    let database = server.database();
    // Slow enough that there are epochs between the kills on any machine.
    let text = COUNTING.replace("RATE", "800").replace("DELIVERY", "exactly_once").replace("INTERVAL", "100ms");
    let files = files(&server, &database, &text);
    let state = files.folder.path().join("state").display().to_string();
    let count = || purchases(&server, &database);
    for reached in [1_000, 3_000] {
        let mut process =
            command(&files.pipeline, &["--state", &state], PASSWORD).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("rows are in the table", 120, || (count() >= reached).then_some(()));
        assert_eq!(process.try_wait().unwrap(), None, "the process was to be killed in the middle");
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(count() < 12_000);
    hurry(&files, "800");
    for _ in 0..2 {
        // The second of these finds that the pipeline has ended.
        let said = run(&files.pipeline, &["--state", &state], PASSWORD);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(server.psql(&database, "SELECT count(*), count(DISTINCT transaction_id) FROM purchases"), "12000|12000");
    }
    let copies = json_rows(&files.folder.path().join("copy"));
    assert_eq!(copies.len(), 12_000);
    let total: f64 = copies.iter().map(|row| row["amount"].as_f64().unwrap()).sum();
    let found: f64 = server.psql(&database, "SELECT sum(amount) FROM purchases").parse().unwrap();
    assert!((found / total - 1.0).abs() < 1e-9, "{found} for {total}");
    check_customers(&server, &database);
    assert_eq!(
        server.psql(&database, "SELECT sink, generation, epoch > 3 FROM pelton_epochs"),
        "|4|t",
        "each of four starts takes a generation"
    );
}

/// One database decides and another follows; checkpoints are elsewhere. The process dies between the two, and its folder is gone, as on another machine.
#[test]
fn what_was_decided_is_delivered_from_the_checkpoints_without_the_state_folder() {
    let server = Server::shared();
    let databases = [server.database(), server.database()];
    let text = COUNTING.replace("RATE", "800").replace("DELIVERY", "exactly_once").replace("INTERVAL", "100ms, storage: 'FOLDER/store'");
    let (before, after) = text.split_once("name: Newest").unwrap();
    let text = format!("{before}name: Newest{}", after.replacen("TABLE", &TABLE.replace("DATABASE", &databases[1]), 1));
    let files = files(&server, &databases[0], &text);
    let state = files.folder.path().join("state");
    for epochs in [3, 6] {
        let mut command = command(&files.pipeline, &["--state", state.to_str().unwrap()], PASSWORD);
        let said: Said = command.env("PELTON_FAILPOINT", format!("postgres.committed:{epochs}")).output().unwrap().into();
        assert!(said.err.contains("postgres.committed"), "{said:?}");
        let epoch = |database| server.psql(database, "SELECT max(epoch) FROM pelton_epochs").parse::<u64>().unwrap();
        assert_eq!(epoch(&databases[0]), epoch(&databases[1]) + 1, "the last epoch is decided, and not everywhere");
        assert!(std::fs::read_dir(state.join("outbox")).unwrap().count() > 0, "rows wait");
        std::fs::remove_dir_all(&state).unwrap();
    }
    hurry(&files, "800");
    let said = run(&files.pipeline, &["--state", state.to_str().unwrap()], PASSWORD);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(server.psql(&databases[0], "SELECT count(*), count(DISTINCT transaction_id) FROM purchases"), "12000|12000");
    let rows = |database, sql| server.psql(database, sql).lines().map(str::to_string).collect::<BTreeSet<_>>();
    let purchases = rows(&databases[0], "SELECT customer_id, transaction_id, amount FROM purchases");
    let newest = rows(&databases[1], "SELECT customer_id, transaction_id, amount FROM customers");
    assert!(newest.is_subset(&purchases), "{:?} was never bought", newest.difference(&purchases).next());
    assert_eq!(newest.len(), rows(&databases[0], "SELECT DISTINCT customer_id FROM purchases").len());
    let left = std::fs::read_dir(files.folder.path().join("store/outbox")).map_or(0, |left| left.count());
    assert!(left <= 4, "{left} pieces are left in the store: what was delivered is removed");
}

/// Rows are in the table before any checkpoint; kills repeat some and lose none; the table by key and the files are exact all the same.
#[test]
fn at_least_once_shows_rows_at_once_and_a_kill_loses_none() {
    let server = Server::shared();
    let database = server.database();
    let text = COUNTING.replace("RATE", "1000").replace("DELIVERY", "at_least_once");
    let slow = files(&server, &database, &text.replace("INTERVAL", "60s"));
    let state = slow.folder.path().join("state");
    let folder = state.display().to_string();
    let kill_at = |pipeline: &Path, reached: u64| {
        let mut process = command(pipeline, &["--state", &folder], PASSWORD).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("rows are in the table", 120, || (purchases(&server, &database) >= reached).then_some(()));
        assert_eq!(process.try_wait().unwrap(), None, "the process was to be killed in the middle");
        process.kill().unwrap();
        process.wait().unwrap();
    };
    kill_at(&slow.pipeline, 2_000);
    assert_eq!(newest_manifest(&state), None);
    let repeated = purchases(&server, &database);
    let text = std::fs::read_to_string(&slow.pipeline).unwrap();
    std::fs::write(&slow.pipeline, text.replace("interval: 60s", "interval: 100ms")).unwrap();
    kill_at(&slow.pipeline, repeated + 4_000);
    hurry(&slow, "1000");
    let said = run(&slow.pipeline, &["--state", &folder], PASSWORD);
    assert_eq!(said.code, 0, "{said:?}");
    let rows = purchases(&server, &database);
    println!("kills=2 records=12000 duplicated={}", rows - 12_000);
    assert!(rows >= 12_000 + repeated, "{rows} rows, {repeated} of them before any checkpoint");
    assert_eq!(server.psql(&database, "SELECT count(DISTINCT transaction_id) FROM purchases"), "12000");
    check_customers(&server, &database);
    assert_eq!(json_rows(&slow.folder.path().join("copy")).len(), 12_000);
    assert_eq!(server.psql(&database, "SELECT to_regclass('pelton_epochs') IS NULL"), "t");
}

/// Connections are cut in the middle of commits, whose answers are then lost or which never arrive; the server crashes and comes back. The run goes on by
/// itself, and each row is there once.
#[test]
fn a_server_that_crashes_and_commits_that_are_cut_end_exactly() {
    let mut server = Server::start();
    let database = server.database();
    let proxy = Proxy::start(server.port());
    let text = COUNTING.replace("RATE", "700").replace("DELIVERY", "exactly_once").replace("INTERVAL", "100ms");
    // The proxy must be able to read what passes.
    let text = text.replace("create: if_missing", "create: if_missing\n        connection_properties: sslmode=disable");
    let files = files_at(proxy.port, &database, &text);
    let state = files.folder.path().join("state").display().to_string();
    let log = files.folder.path().join("log");
    let written = std::fs::File::create(&log).unwrap();
    let mut process = command(&files.pipeline, &["--state", &state], PASSWORD).stdout(Stdio::null()).stderr(written).spawn().unwrap();
    let mut reached = |server: &Server, rows: u64| {
        wait_for("rows are in the table", 120, || (purchases(server, &database) >= rows).then_some(()));
        assert_eq!(process.try_wait().unwrap(), None, "{}", std::fs::read_to_string(&log).unwrap());
    };
    for (cut, rows) in [(Cut::BeforeCommit, 1_000), (Cut::AfterCommit, 3_000)] {
        reached(&server, rows);
        let before = proxy.cuts();
        proxy.cut(cut);
        wait_for("a commit is cut", 60, || (proxy.cuts() > before).then_some(()));
        proxy.cut(Cut::Never);
    }
    reached(&server, 5_000);
    server.crash();
    server.up();
    let status = wait_for("the end of the run", 120, || process.try_wait().unwrap());
    let said = std::fs::read_to_string(&log).unwrap();
    println!("{said}");
    assert!(status.success() && !said.contains("panicked") && said.contains("goes on from its last checkpoint"), "{said}");
    assert_eq!(server.psql(&database, "SELECT count(*), count(DISTINCT transaction_id) FROM purchases"), "12000|12000");
    check_customers(&server, &database);
    assert_eq!(json_rows(&files.folder.path().join("copy")).len(), 12_000);
}

/// The table that decides is locked for forty intervals. The epoch waits for it, and nothing starts anew.
#[test]
fn a_checkpoint_that_hangs_stops_nothing() {
    let server = Server::shared();
    let database = server.database();
    let text = COUNTING.replace("RATE", "2000").replace("DELIVERY", "exactly_once").replace("INTERVAL", "100ms");
    let files = files(&server, &database, &text);
    let state = files.folder.path().join("state").display().to_string();
    let log = files.folder.path().join("log");
    let written = std::fs::File::create(&log).unwrap();
    let mut process = command(&files.pipeline, &["--state", &state], PASSWORD).stdout(Stdio::null()).stderr(written).spawn().unwrap();
    wait_for("rows are in the table", 120, || (purchases(&server, &database) >= 1_000).then_some(()));
    std::thread::scope(|scope| {
        let locked =
            "SELECT count(*) FROM pg_locks WHERE relation = 'pelton_epochs'::regclass AND mode = 'AccessExclusiveLock' AND granted";
        scope.spawn(|| server.psql(&database, "LOCK TABLE pelton_epochs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4)"));
        wait_for("the table is locked", 120, || (server.psql(&database, locked) == "1").then_some(()));
        let shown = purchases(&server, &database);
        wait_for("the lock is gone", 120, || {
            let shows = purchases(&server, &database);
            let is_locked = server.psql(&database, locked) == "1";
            assert!(!is_locked || shows == shown, "no epoch was decided meanwhile");
            (!is_locked).then_some(())
        });
    });
    let status = wait_for("the end of the run", 120, || process.try_wait().unwrap());
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success() && !said.contains("goes on from its last checkpoint"), "{said}");
    assert_eq!(server.psql(&database, "SELECT count(*), count(DISTINCT transaction_id) FROM purchases"), "12000|12000");
    assert_eq!(server.psql(&database, "SELECT generation FROM pelton_epochs WHERE sink = ''"), "1", "one life");
    check_customers(&server, &database);
    assert_eq!(json_rows(&files.folder.path().join("copy")).len(), 12_000);
}

/// Rows of the table of all purchases.
fn purchases(server: &Server, database: &str) -> u64 {
    let count = "SELECT CASE WHEN to_regclass('purchases') IS NULL THEN 0 ELSE (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM purchases', false, true, '')))[1]::text::int END";
    server.psql(database, count).parse().unwrap()
}

/// The table by key has a row of each customer, and it is one of the purchases.
fn check_customers(server: &Server, database: &str) {
    let newest =
        "SELECT count(*) FROM customers c WHERE (c.transaction_id, c.amount) NOT IN (SELECT transaction_id, amount FROM purchases)";
    assert_eq!(server.psql(database, newest), "0");
    let customers = server.psql(database, "SELECT count(*) FROM customers");
    assert_eq!(customers, server.psql(database, "SELECT count(DISTINCT customer_id) FROM purchases"));
}

//! `pelton top`: a page of the terminal with what all pipelines of a host are doing.

use super::list::rows;
use super::status::transforms;
use super::{HostArguments, of, table};
use anyhow::Result;
use console::{Key, Term};
use pelton_server::client::Client;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton top\n\nUp and down choose a pipeline, q ends. Where there is no terminal, or with --once, one page is printed."
)]
pub struct Top {
    #[command(flatten)]
    host: HostArguments,
    /// Print one page and end.
    #[arg(long)]
    once: bool,
}

/// From one page to the next.
const REFRESH: Duration = Duration::from_secs(1);

/// What a page shows.
#[derive(Default)]
struct Page {
    host: Value,
    pipelines: Value,
    /// The pipeline that is chosen, by number.
    chosen: usize,
    status: Value,
}

impl Page {
    fn names(&self) -> Vec<String> {
        self.pipelines.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_string)).collect()
    }

    /// Asks the host anew.
    fn refresh(&mut self, client: &Client) -> Result<()> {
        self.host = client.get("/v1/host")?;
        self.pipelines = client.get("/v1/pipelines")?;
        let names = self.names();
        self.chosen = self.chosen.min(names.len().saturating_sub(1));
        self.status = match names.get(self.chosen) {
            // It may have been removed just now.
            Some(name) => client.get(&of(name, "")).unwrap_or_default(),
            None => Value::Null,
        };
        Ok(())
    }

    fn head(&self) -> String {
        format!(
            "Pelton {}, up {:.0} s, {} MiB of memory, {} pipelines",
            self.host["version"].as_str().unwrap_or_default(),
            self.host["uptime_seconds"].as_f64().unwrap_or(0.0),
            self.host["resident_bytes"].as_u64().unwrap_or(0) >> 20,
            self.names().len()
        )
    }

    /// The lines of a terminal of this size; the first one and heads of tables are set off, and so is the pipeline that is chosen.
    fn lines(&self, high: usize, wide: usize) -> Vec<String> {
        let bold = |line: &str| format!("\x1b[1m{line}\x1b[0m");
        let cut = |line: &str| line.chars().take(wide).collect::<String>();
        let mut lines = vec![bold(&cut(&self.head())), String::new()];
        for (number, line) in table(&rows(&self.pipelines)).lines().map(cut).enumerate() {
            lines.push(match number {
                0 => bold(&line),
                number if number == self.chosen + 1 => format!("\x1b[7m{line}\x1b[0m"),
                _ => line,
            });
        }
        lines.push(String::new());
        for (number, line) in table(&transforms(&self.status)).lines().map(cut).enumerate() {
            lines.push(if number == 0 { bold(&line) } else { line });
        }
        lines.truncate(high.saturating_sub(1));
        lines.push(cut("up, down: another pipeline; q: end"));
        lines
    }
}

pub fn run(command: &Top) -> Result<ExitCode> {
    let client = command.host.client()?;
    let mut page = Page::default();
    page.refresh(&client)?;
    let terminal = Term::stdout();
    if command.once || !terminal.is_term() {
        println!("{}\n\n{}", page.head(), table(&rows(&page.pipelines)));
        for name in page.names() {
            println!("{name}\n{}", table(&transforms(&client.get(&of(&name, ""))?)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    terminal.hide_cursor()?;
    let ended = live(&client, &mut page, &terminal, &keys());
    terminal.show_cursor()?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Keys as they are pressed: reading one waits, and the page must go on.
fn keys() -> Receiver<Key> {
    let (sender, keys) = channel();
    let reader = std::thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(key) = Term::stdout().read_key() {
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    // Without it there are no keys, and Ctrl-C ends the page.
    drop(reader);
    keys
}

/// Until somebody presses q.
fn live(client: &Client, page: &mut Page, terminal: &Term, keys: &Receiver<Key>) -> Result<()> {
    loop {
        let (high, wide) = terminal.size();
        terminal.clear_screen()?;
        terminal.write_str(&page.lines(high.into(), wide.into()).join("\n"))?;
        match keys.recv_timeout(REFRESH) {
            Ok(Key::Char('q') | Key::Escape | Key::CtrlC) => return Ok(terminal.clear_screen()?),
            Ok(Key::ArrowUp) => page.chosen = page.chosen.saturating_sub(1),
            Ok(Key::ArrowDown) => page.chosen += 1,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(REFRESH),
        }
        page.refresh(client)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_shows_pipelines_and_the_chosen_one() {
        let page = Page {
            host: json!({"version": "1.2.3", "uptime_seconds": 61.0, "resident_bytes": 64 << 20}),
            pipelines: json!([{"name": "orders", "state": "running", "version": 7, "rows_per_second": 1234.4}, {"name": "logs", "state": "failed"}]),
            chosen: 1,
            status: json!({"transforms": [{"name": "Keep", "rows_in": 42, "busy": 0.25, "waits": 3}]}),
        };
        let lines = page.lines(20, 140);
        let text = lines.join("\n");
        for part in ["Pelton 1.2.3", "64 MiB", "2 pipelines", "orders", "running", "1234", "failed", "Keep", "42", "25 %"] {
            assert!(text.contains(part), "`{part}` is not on the page: {text}");
        }
        assert!(text.contains("\x1b[7mlogs"), "{text}");
        assert_eq!(page.lines(5, 10).len(), 5);
        assert!(console::strip_ansi_codes(&page.lines(5, 10)[0]).chars().count() <= 10);
    }
}

//! Fuzz targets of the SDK's unsafe code, each against something that knows nothing of it. Under `cargo test` they explore for a moment;
//! `cargo xtask fuzz` explores on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::json;
use crate::read::{Flat, Read};
use crate::wire::{Columns, Field};
use crate::write::{Buffers, Write};

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

/// Random bytes as a row of small decisions; zeros when they are used up, so that everything ends.
struct Decisions<'a>(std::slice::Iter<'a, u8>);

impl Decisions<'_> {
    fn one_of(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % count
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 8] = ["a", "é", "😀", "0123456789abcdef", " ", "zażółć", "\u{7f}", "\u{2028}"];
        (0..self.one_of(5)).map(|_| PARTS[self.one_of(PARTS.len())]).collect()
    }

    fn json_string(&mut self, out: &mut String) {
        const PARTS: [&str; 12] =
            ["a", "é", "😀", "\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "0123456789abcdef", "/", "\\u0000"];
        out.push('"');
        (0..self.one_of(6)).for_each(|_| out.push_str(PARTS[self.one_of(PARTS.len())]));
        out.push('"');
    }

    fn json_value(&mut self, depth: usize, out: &mut String) {
        const PLAIN: [&str; 10] = ["0", "-1", "17", "1.5", "-2e10", "1E-3", "9223372036854775807", "true", "false", "null"];
        match self.one_of(if depth == 0 { 2 } else { 5 }) {
            0 => out.push_str(PLAIN[self.one_of(PLAIN.len())]),
            1 | 2 => self.json_string(out),
            3 => {
                out.push('[');
                for at in 0..self.one_of(4) {
                    out.push_str(if at == 0 { "" } else { " , " });
                    self.json_value(depth - 1, out);
                }
                out.push(']');
            }
            _ => self.json_object(depth - 1, out),
        }
    }

    fn json_object(&mut self, depth: usize, out: &mut String) {
        out.push('{');
        for at in 0..self.one_of(4) {
            out.push_str(if at == 0 { "" } else { "," });
            self.json_string(out);
            out.push_str(if self.one_of(2) == 0 { ":" } else { "\t:\n" });
            self.json_value(depth, out);
        }
        out.push('}');
    }

    /// Nothing, a token put in, or a character taken out, anywhere.
    fn damage(&mut self, mut text: String) -> String {
        const TOKENS: [&str; 14] = ["\"", "\\", "{", "}", "[", "]", ",", ":", "\u{1}", "é", "1", "\\u", "\\u12", "\\u123\""];
        for _ in 0..self.one_of(3) {
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            let Some(place) = places.get((self.one_of(256) * 256 + self.one_of(256)) % places.len().max(1)).copied() else { break };
            match self.one_of(3) {
                0 => _ = text.remove(place),
                1 => text.truncate(place),
                _ => text.insert_str(place, TOKENS[self.one_of(TOKENS.len())]),
            }
        }
        text
    }
}

/// Every text is judged as serde_json does, and every piece that is given out is a whole string that serde_json reads alike.
#[test]
fn fuzz_json_against_serde_json() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(256).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let mut text = String::new();
        decisions.json_object(3, &mut text);
        check_json(&decisions.damage(text));
    });
}

/// The same for bytes as they come, as far as they are text.
#[test]
fn fuzz_json_from_any_text() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(128).for_each(|bytes: &[u8]| {
        check_json(&format!("{{\"a\":\"{}", String::from_utf8_lossy(bytes)));
    });
}

fn check_json(text: &str) {
    let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    let mut ours = serde_json::Map::new();
    let parsed = json::fields(text, |name, value| {
        assert!(std::str::from_utf8(name.as_bytes()).is_ok());
        let raw = value.raw()?;
        assert!(std::str::from_utf8(raw.as_bytes()).is_ok(), "{text}");
        let wrong = json::JsonError { wanted: "what serde_json reads", at: 0 };
        ours.insert(name.to_owned(), serde_json::from_str(raw).map_err(|_| wrong)?);
        Ok(())
    });
    match &theirs {
        Ok(theirs) => assert_eq!((parsed, &ours), (Ok(()), theirs), "{text}"),
        Err(error) => assert!(parsed.is_err(), "{text}: serde_json says {error}"),
    }
    // Strings and numbers one by one, as authors take them.
    let taken = json::fields(text, |name, value| match theirs.as_ref().ok().and_then(|theirs| theirs.get(name)) {
        // Of a name that comes twice serde_json has the last value only.
        Some(serde_json::Value::String(_)) if unique(text, name) => {
            let found = value.text()?;
            assert!(std::str::from_utf8(found.as_bytes()).is_ok());
            assert_eq!(theirs.as_ref().ok().and_then(|theirs| theirs[name].as_str()), Some(&*found), "{text}");
            Ok(())
        }
        Some(serde_json::Value::Number(number)) if unique(text, name) => {
            // serde_json may be off by a bit where the standard library, which is asked here, is not.
            let (found, theirs) = (value.float()?, number.as_f64().expect("a number of serde_json is a double"));
            assert!((found - theirs).abs() <= 1e-14 * theirs.abs(), "{text}: {found} and {theirs}");
            Ok(())
        }
        _ => Ok(()),
    });
    assert!(theirs.is_err() || taken.is_ok(), "{text}");
}

/// Whether a name of an object comes once, said by the parser's own walk, which the comparison above has checked.
fn unique(text: &str, name: &str) -> bool {
    let mut count = 0;
    let walked = json::fields(text, |found, _| {
        count += usize::from(found == name);
        Ok(())
    });
    walked.is_ok() && count == 1
}

/// What was written as columns is read back, and every string that is read is UTF-8.
#[test]
fn fuzz_columns_of_strings_come_back() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let rows = decisions.one_of(20);
        let optional = |decisions: &mut Decisions<'_>| (decisions.one_of(4) > 0).then(|| decisions.text());
        let texts: Vec<Option<String>> = (0..rows).map(|_| optional(&mut decisions)).collect();
        let (fields, columns) = columns_of(texts.clone());
        let flat = Flat { fields: &fields, columns: &columns };
        assert_eq!(cells::<Option<String>>(flat), texts);
        for (found, sent) in cells::<Option<&str>>(flat).into_iter().zip(&texts) {
            assert_eq!(found.map(checked), sent.as_deref());
        }
        for (found, sent) in cells::<Option<Cow<'_, str>>>(flat).iter().zip(&texts) {
            assert_eq!(found.as_deref().map(checked), sent.as_deref());
        }

        let mut list = || (0..decisions.one_of(4)).map(|_| optional(&mut decisions)).collect::<Vec<_>>();
        let lists: Vec<Vec<Option<String>>> = (0..rows).map(|_| list()).collect();
        let (fields, columns) = columns_of(lists.clone());
        for (found, sent) in cells::<Vec<Option<&str>>>(Flat { fields: &fields, columns: &columns }).into_iter().zip(&lists) {
            assert!(found.into_iter().map(|item| item.map(checked)).eq(sent.iter().map(Option::as_deref)));
        }

        let mut map = || (0..decisions.one_of(4)).map(|_| (decisions.text(), decisions.text())).collect::<BTreeMap<_, _>>();
        let maps: Vec<Option<BTreeMap<String, String>>> = (0..rows).map(|row| (row % 5 > 0).then(&mut map)).collect();
        let (fields, columns) = columns_of(maps.clone());
        for (found, sent) in cells::<Option<BTreeMap<&str, &str>>>(Flat { fields: &fields, columns: &columns }).into_iter().zip(&maps) {
            let owned =
                |map: BTreeMap<&str, &str>| map.into_iter().map(|(key, value)| (checked(key).into(), checked(value).into())).collect();
            assert_eq!(&found.map(owned), sent);
        }
    });
}

fn checked(text: &str) -> &str {
    std::str::from_utf8(text.as_bytes()).expect("what is read as a string is UTF-8")
}

/// One column, written cell by cell.
fn columns_of<W: Write>(cells: Vec<W>) -> (Vec<Field>, Columns) {
    let mut fields = vec![];
    W::fields("cells", false, &mut fields);
    let (rows, mut writer, mut out) = (cells.len() as u32, W::writer(cells.len()), Buffers::default());
    cells.into_iter().for_each(|cell| cell.write(&mut writer));
    W::finish(writer, &mut out);
    (fields, Columns { rows, nodes: out.nodes, buffers: out.buffers })
}

/// Every cell of the one column.
fn cells<'a, R: Read<'a>>(flat: Flat<'a>) -> Vec<R> {
    assert!(R::check(flat.fields, 0).is_ok(), "the column is of this type");
    let reader = R::reader(flat, Flat::TOP);
    (0..flat.columns.rows as usize).map(|row| R::read(&reader, row).expect("no null where none was written")).collect()
}

//! A parser for transforms that take a few fields out of JSON texts: fast in WebAssembly, where it looks at 16 bytes at a time.
//!
//! ```
//! use pelton_sdk::json;
//! let mut status = None;
//! json::fields(r#"{"status": 200, "path": "/a"}"#, |name, value| {
//!     if name == "status" {
//!         status = Some(value.integer()?);
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(status, Some(200));
//! # Ok::<(), json::JsonError>(())
//! ```
//!
//! It accepts exactly the texts of RFC 8259 whose top is an object, and looks at every byte, also of fields that nobody takes. A field
//! that comes twice is given twice. Nesting is bounded by [`DEEPEST`].
//!
//! Invariant: `at` is at most the text's length, and always falls between two characters: it moves past ASCII bytes, or past a whole
//! string up to its quote.

use std::borrow::Cow;
use std::fmt;

/// How deep arrays and objects may nest, so that a hostile text cannot exhaust the stack.
pub const DEEPEST: u32 = 128;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    pub wanted: &'static str,
    /// Bytes from the text's start.
    pub at: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not the JSON that is wanted: {} at byte {}", self.wanted, self.at)
    }
}

impl std::error::Error for JsonError {}

/// Calls `field` with the name and value of each field of the object that `text` is. A value that it leaves is skipped.
#[inline]
pub fn fields<'a>(text: &'a str, mut field: impl FnMut(&str, &mut Value<'a>) -> Result<(), JsonError>) -> Result<(), JsonError> {
    let mut value = Value { text: text.as_bytes(), at: 0, taken: false };
    value.skip_space();
    value.each_field(&mut field)?;
    value.skip_space();
    if value.at < value.text.len() { Err(value.wrong("the end of the text")) } else { Ok(()) }
}

/// A value that has not been looked at yet. It can be taken once.
pub struct Value<'a> {
    text: &'a [u8],
    at: usize,
    taken: bool,
}

impl<'a> Value<'a> {
    /// A string. It borrows from the text unless it has escapes.
    #[inline]
    pub fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.taken = true;
        self.string()
    }

    /// A number without fraction or exponent that fits.
    #[inline]
    pub fn integer(&mut self) -> Result<i64, JsonError> {
        let start = self.at;
        let number = self.number()?;
        // Up to 18 digits cannot overflow, and are the common case.
        let digits = number.as_bytes();
        if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
            return Ok(digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')));
        }
        number.parse().map_err(|_| JsonError { wanted: "a whole number of 64 bits", at: start })
    }

    pub fn float(&mut self) -> Result<f64, JsonError> {
        let start = self.at;
        self.number()?.parse().map_err(|_| JsonError { wanted: "a number", at: start })
    }

    /// A number as it is written.
    #[inline]
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        self.taken = true;
        let start = self.at;
        self.skip_number()?;
        Ok(ascii(&self.text[start..self.at]))
    }

    pub fn boolean(&mut self) -> Result<bool, JsonError> {
        self.taken = true;
        match self.peek() {
            Some(b't') => self.word(b"true").map(|()| true),
            Some(b'f') => self.word(b"false").map(|()| false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// Whether it is null. If so it is taken.
    pub fn null(&mut self) -> Result<bool, JsonError> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.taken = true;
        self.word(b"null").map(|()| true)
    }

    /// The fields of an object inside.
    pub fn fields(&mut self, mut field: impl FnMut(&str, &mut Value<'a>) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.each_field(&mut field)?;
        self.taken = true;
        Ok(())
    }

    /// Any value, as it is written.
    pub fn raw(&mut self) -> Result<&'a str, JsonError> {
        self.taken = true;
        let start = self.at;
        self.skip(DEEPEST)?;
        // SAFETY: `text` comes from a str, and both ends fall between characters, by the module's invariant.
        Ok(unsafe { std::str::from_utf8_unchecked(&self.text[start..self.at]) })
    }

    #[inline(always)]
    fn each_field(&mut self, field: &mut impl FnMut(&str, &mut Value<'a>) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.byte(b'{', "an object")?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.skip_space();
            self.byte(b':', "a colon")?;
            self.skip_space();
            self.taken = false;
            field(&name, self)?;
            if !self.taken {
                self.skip(DEEPEST)?;
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("a comma or the object's end")),
            }
            self.skip_space();
        }
        self.at += 1;
        Ok(())
    }

    fn skip(&mut self, depth: u32) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.skip_string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'{' | b'[') if depth == 0 => Err(self.wrong("a value that is nested less deep")),
            Some(b'{') => self.each_field(&mut |_, value: &mut Value<'a>| {
                value.taken = true;
                value.skip(depth - 1)
            }),
            Some(b'[') => self.skip_array(depth - 1),
            _ => Err(self.wrong("a value")),
        }
    }

    fn skip_array(&mut self, depth: u32) -> Result<(), JsonError> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip(depth)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("a comma or the array's end")),
            }
            self.skip_space();
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at + 1;
        let escaped = self.skip_string()?;
        // SAFETY: `text` comes from a str; the quotes before and after are whole characters, so what is between them is UTF-8.
        let inside = unsafe { std::str::from_utf8_unchecked(&self.text[start..self.at - 1]) };
        if escaped { unescape(inside, start).map(Cow::Owned) } else { Ok(Cow::Borrowed(inside)) }
    }

    /// Moves past a string and answers whether it has escapes, which it checks only as far as finding the end needs.
    #[inline(always)]
    fn skip_string(&mut self) -> Result<bool, JsonError> {
        self.byte(b'"', "a string")?;
        self.at = plain_until(self.text, self.at);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.skip_escaped()
    }

    #[cold]
    fn skip_escaped(&mut self) -> Result<bool, JsonError> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(true);
                }
                Some(b'\\') => self.skip_escape()?,
                Some(_) => return Err(self.wrong("a string without control characters")),
                None => return Err(self.wrong("the string's end")),
            }
            self.at = plain_until(self.text, self.at);
        }
    }

    fn skip_escape(&mut self) -> Result<(), JsonError> {
        let length = match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if self.text.get(self.at + 2..self.at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => 6,
            _ => return Err(self.wrong("an escape")),
        };
        self.at += length;
        Ok(())
    }

    #[inline(always)]
    fn skip_number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return Err(self.wrong("a number")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn some_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.skip_digits();
        if self.at == start { Err(self.wrong("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.wrong("true, false or null"))
    }

    #[inline(always)]
    fn byte(&mut self, byte: u8, wanted: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(wanted));
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn wrong(&self, wanted: &'static str) -> JsonError {
        JsonError { wanted, at: self.at }
    }
}

#[inline(always)]
fn ascii(bytes: &[u8]) -> &str {
    // SAFETY: only called with the bytes of a number, which are ASCII.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

/// The first byte from `at` on that a string cannot hold as it is: a quote, a backslash, a control character, or the text's end.
#[inline(always)]
fn plain_until(text: &[u8], mut at: usize) -> usize {
    #[cfg(target_arch = "wasm32")]
    while let Some(chunk) = text.get(at..at + 16) {
        use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, v128_load, v128_or};
        // SAFETY: the chunk is 16 bytes long, and WebAssembly's loads need no alignment.
        let bytes = unsafe { v128_load(chunk.as_ptr().cast()) };
        let special =
            v128_or(v128_or(u8x16_eq(bytes, u8x16_splat(b'"')), u8x16_eq(bytes, u8x16_splat(b'\\'))), u8x16_lt(bytes, u8x16_splat(0x20)));
        let found = u8x16_bitmask(special);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    while text.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Replaces the escapes of a string whose escapes are well-formed. A surrogate without its other half is an error.
#[cold]
fn unescape(text: &str, start: usize) -> Result<String, JsonError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('\\') {
        out.push_str(&rest[..place]);
        let (letter, length) = match rest.as_bytes()[place + 1] {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => {
                let wrong = || JsonError { wanted: "a pair of surrogates", at: start + text.len() - rest.len() + place };
                code_point(&rest[place..]).ok_or_else(wrong)?
            }
            other => (char::from(other), 2),
        };
        out.push(letter);
        rest = &rest[place + length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The character of `\uXXXX` or of a pair of them, and how many bytes that took.
fn code_point(escape: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u32::from_str_radix(escape.get(at + 2..at + 6)?, 16).ok();
    let first = unit(0)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = if escape[6..].starts_with("\\u") { unit(6)? } else { return None };
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)?, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde_json makes of a text must be what this parser makes of it.
    fn check(text: &str) {
        let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
        let mut ours = serde_json::Map::new();
        let parsed = fields(text, |name, value| {
            let raw = if value.peek() == Some(b'"') {
                serde_json::Value::from(value.text()?)
            } else {
                serde_json::from_str(value.raw()?).map_err(|_| JsonError { wanted: "what serde_json reads", at: 0 })?
            };
            ours.insert(name.to_owned(), raw);
            Ok(())
        });
        match theirs {
            Ok(theirs) => assert_eq!((parsed, ours), (Ok(()), theirs), "{text}"),
            Err(error) => assert!(parsed.is_err(), "{text}: serde_json says {error}"),
        }
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        for text in [
            "{}",
            " { } ",
            "",
            "[]",
            "{",
            "}",
            "{}x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{,}",
            "{\"a\":1}}",
            r#"{"a":1}"#,
            r#"{ "a" : -1.5e+10 , "b" : [ 1 , { "c" : null } , [ ] ] }"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":0}"#,
            r#"{"a":-0}"#,
            r#"{"a":tru}"#,
            r#"{"a":true,"b":false,"c":null}"#,
            r#"{"a":nul}"#,
            r#"{"a":"text that is longer than sixteen bytes, with a quote \" and \\ in it"}"#,
            r#"{"a":"\u0041\n\/\b\f\r\t"}"#,
            r#"{"a":"\ud83d\ude00 zażółć"}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"\ude00"}"#,
            r#"{"a":"\ud83dx"}"#,
            r#"{"a":"\ud83d\u0041"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\"#,
            r#"{"a":"x"#,
            "{\"a\":\"\n\"}",
            r#"{"a\u0062":1}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":[}"#,
            r#"{"a":"żółć","żółć":"0123456789abcdefżółć"}"#,
        ] {
            check(text);
        }
    }

    #[test]
    fn every_piece_of_a_text_is_judged_alike() {
        let text = r#"{"ip":"1.2.3.4","user_id":17,"lat":-5.25e1,"deep":[[1,{"x":"y\n"}],true],"agent":"Mozilla/5.0 (X11; Linux) ż"}"#;
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            check(&text[..end]);
            for wrong in ["\"", "\\", "\u{1}", ",", "}", "0", "x"] {
                check(&format!("{}{wrong}{}", &text[..end], &text[end..]));
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(fields(&nested(DEEPEST as usize), |_, _| Ok(())).is_ok());
        assert!(fields(&nested(100_000), |_, _| Ok(())).is_err());
    }

    #[test]
    fn numbers_are_taken_as_asked() {
        let take = |text: &str| {
            let mut number = None;
            fields(text, |_, value| value.integer().map(|found| number = Some(found))).map(|()| number)
        };
        assert_eq!(take(r#"{"a":-9223372036854775808}"#), Ok(Some(i64::MIN)));
        assert_eq!(take(r#"{"a":123456789012345678}"#), Ok(Some(123_456_789_012_345_678)));
        assert_eq!(take(r#"{"a":1.0}"#).map_err(|error| error.at), Err(5));
        assert!(take(r#"{"a":9223372036854775808}"#).is_err());
    }
}

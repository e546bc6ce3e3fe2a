//! A JSON parser that keeps positions and repeated keys.

use std::fmt;

use super::Mistake;

/// Deeper than any record: DynamoDB nests 32 levels, each of which is two levels here.
///
/// Source: [nested attribute depth](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-attributes).
const DEEPEST: usize = 128;

/// A value, the byte at which it began, and its spelling.
#[derive(Debug, Clone)]
pub(super) struct JsonValue<'a> {
    pub(super) at: usize,
    pub(super) text: &'a str,
    pub(super) kind: JsonKind<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum JsonKind<'a> {
    Null,
    Truth(bool),
    /// As it was spelled.
    Number(&'a str),
    Text(String),
    List(Vec<JsonValue<'a>>),
    Object(Vec<JsonMember<'a>>),
}

/// A name and its value.
#[derive(Debug, Clone)]
pub(super) struct JsonMember<'a> {
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) value: JsonValue<'a>,
}

impl JsonKind<'_> {
    /// Its type, in words.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Truth(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Parses one JSON value with nothing after it.
pub(super) fn read(text: &str) -> Result<JsonValue<'_>, Mistake> {
    let mut reader = JsonReader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.expected("the end of the pattern")),
    }
}

struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonReader<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn accept(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.at += 1;
        }
    }

    fn error(&self, problem: impl fmt::Display) -> Mistake {
        Mistake::new(self.at, "", problem)
    }

    fn expected(&self, what: &str) -> Mistake {
        match self.peek() {
            None => self.error(format_args!(
                "the pattern ends where {what} was expected: is a bracket or a quote not closed?"
            )),
            Some(found) => self.error(format_args!("expected {what}, found {found:?}")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<JsonValue<'a>, Mistake> {
        self.skip_space();
        if depth > DEEPEST {
            return Err(self.error(format_args!("nested deeper than {DEEPEST} levels")));
        }
        let at = self.at;
        let kind = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => JsonKind::Text(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            _ => self.word()?,
        };
        let text = &self.text[at..self.at];
        Ok(JsonValue { at, text, kind })
    }

    fn word(&mut self) -> Result<JsonKind<'a>, Mistake> {
        for (word, kind) in [
            ("null", JsonKind::Null),
            ("true", JsonKind::Truth(true)),
            ("false", JsonKind::Truth(false)),
        ] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        Err(self.expected("a JSON value"))
    }

    fn object(&mut self, depth: usize) -> Result<JsonKind<'a>, Mistake> {
        self.next();
        let mut members = Vec::new();
        self.skip_space();
        if self.accept('}') {
            return Ok(JsonKind::Object(members));
        }
        loop {
            self.skip_space();
            let at = self.at;
            if self.peek() != Some('"') {
                return Err(self.expected("a name in double quotes"));
            }
            let name = self.string()?;
            self.skip_space();
            if !self.accept(':') {
                return Err(self.expected("':' behind the name"));
            }
            let value = self.value(depth + 1)?;
            members.push(JsonMember { at, name, value });
            self.skip_space();
            if self.accept('}') {
                return Ok(JsonKind::Object(members));
            }
            if !self.accept(',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<JsonKind<'a>, Mistake> {
        self.next();
        let mut values = Vec::new();
        self.skip_space();
        if self.accept(']') {
            return Ok(JsonKind::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.skip_space();
            if self.accept(']') {
                return Ok(JsonKind::List(values));
            }
            if !self.accept(',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn digits(&mut self) -> Result<(), Mistake> {
        if !matches!(self.peek(), Some('0'..='9')) {
            return Err(self.expected("a digit"));
        }
        while matches!(self.peek(), Some('0'..='9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<JsonKind<'a>, Mistake> {
        let start = self.at;
        self.accept('-');
        if !self.accept('0') {
            self.digits()?;
        }
        if self.accept('.') {
            self.digits()?;
        }
        if self.accept('e') || self.accept('E') {
            let _ = self.accept('+') || self.accept('-');
            self.digits()?;
        }
        Ok(JsonKind::Number(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Result<String, Mistake> {
        self.next();
        let mut read = String::new();
        loop {
            match self.peek() {
                None => return Err(self.expected("a closing quote")),
                Some('"') => {
                    self.next();
                    return Ok(read);
                }
                Some('\\') => {
                    let escaped = self.escape()?;
                    read.push(escaped);
                }
                Some(control) if control < ' ' => {
                    return Err(self.error("a control character in a text: write \\n, \\t or \\u…"));
                }
                Some(other) => {
                    self.next();
                    read.push(other);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Mistake> {
        let start = self.at;
        self.next();
        let plain = match self.next() {
            Some(plain @ ('"' | '\\' | '/')) => plain,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(start),
            _ => {
                self.at = start;
                return Err(
                    self.error("a backslash must be followed by one of \" \\ / b f n r t u")
                );
            }
        };
        Ok(plain)
    }

    fn unicode(&mut self, start: usize) -> Result<char, Mistake> {
        let mut units = vec![self.unit()];
        if matches!(units[0], Some(0xD800..=0xDBFF)) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            units.push(self.unit());
        }
        let units: Option<Vec<u16>> = units.into_iter().collect();
        let read = units.and_then(|units| {
            let mut read = char::decode_utf16(units);
            let first = read.next()?.ok()?;
            read.next().is_none().then_some(first)
        });
        if read.is_none() {
            self.at = start;
        }
        read.ok_or_else(|| {
            self.error("\\u must be followed by four hexadecimal digits of a character")
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }
}

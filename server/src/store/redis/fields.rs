//! What comes out of the scripts, field by field.

use std::sync::Arc;

use gangline_protocol::{Json, SessionId};
use redis::Value;
use serde_json::value::RawValue;

/// Something came back that these scripts do not return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis gave an answer of an unexpected form: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) type Decoded<T> = Result<T, Malformed>;

/// The fields of an answer, taken in their order.
#[derive(Debug)]
pub(super) struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    pub(super) fn of(value: Value) -> Decoded<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(Malformed("no list")),
        }
    }

    pub(super) fn next(&mut self) -> Value {
        // Redis cuts a list off at its first nil.
        self.0.next().unwrap_or(Value::Nil)
    }

    pub(super) fn list(&mut self) -> Decoded<Self> {
        Self::of(self.next())
    }

    pub(super) fn optional_list(&mut self) -> Decoded<Option<Self>> {
        match self.next() {
            Value::Nil => Ok(None),
            value => Self::of(value).map(Some),
        }
    }

    pub(super) fn integer(&mut self) -> Decoded<i64> {
        match self.next() {
            Value::Int(number) => Ok(number),
            _ => Err(Malformed("no integer")),
        }
    }

    /// A number, as Redis' own integer or as its digits.
    pub(super) fn number(&mut self) -> Decoded<u64> {
        self.optional_number()?.ok_or(Malformed("no number"))
    }

    pub(super) fn optional_number(&mut self) -> Decoded<Option<u64>> {
        let wrong = Malformed("no number");
        match self.next() {
            Value::Nil => Ok(None),
            Value::Int(number) => u64::try_from(number).map(Some).map_err(|_| wrong),
            Value::BulkString(digits) => {
                let text = std::str::from_utf8(&digits).map_err(|_| wrong)?;
                text.parse().map(Some).map_err(|_| wrong)
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn flag(&mut self) -> Decoded<bool> {
        Ok(self.integer()? != 0)
    }

    pub(super) fn optional_bytes(&mut self) -> Decoded<Option<Vec<u8>>> {
        match self.next() {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::SimpleString(text) => Ok(Some(text.into_bytes())),
            _ => Err(Malformed("no text")),
        }
    }

    pub(super) fn bytes(&mut self) -> Decoded<Vec<u8>> {
        self.optional_bytes()?.ok_or(Malformed("no text"))
    }

    pub(super) fn optional_text(&mut self) -> Decoded<Option<String>> {
        self.optional_bytes()?.map(text).transpose()
    }

    pub(super) fn text(&mut self) -> Decoded<String> {
        text(self.bytes()?)
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Decoded<T> {
        self.text()?.parse().map_err(|_| Malformed("no such name"))
    }

    pub(super) fn optional_parsed<T: std::str::FromStr>(&mut self) -> Decoded<Option<T>> {
        let text = self.optional_text()?;
        let parsed = text.map(|text| text.parse().map_err(|_| Malformed("no such name")));
        parsed.transpose()
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn text(bytes: Vec<u8>) -> Decoded<String> {
    String::from_utf8(bytes).map_err(|_| Malformed("a text that is not UTF-8"))
}

pub(super) fn json(bytes: &[u8]) -> Decoded<Json> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed("JSON that is not UTF-8"))?;
    let value = RawValue::from_string(text.to_owned()).map_err(|_| Malformed("no JSON"))?;
    Ok(Arc::from(value))
}

/// What every step returns before its own reply.
#[derive(Debug)]
pub(super) struct Frame {
    /// In how many milliseconds time alone may change the queue.
    pub(super) due_in_ms: Option<u64>,
    /// How many more items may be leased.
    pub(super) ready: u64,
    /// When the step was carried out, in milliseconds of Redis' clock; a queue's steps never go
    /// back. Nothing for a step that changed nothing.
    pub(super) stepped_ms: Option<u64>,
    /// Sessions for which there is news.
    pub(super) sessions: Vec<SessionId>,
    /// The queue is over now, or gone.
    pub(super) over: bool,
    /// What kind of reply follows.
    pub(super) tag: String,
}

impl Frame {
    pub(super) fn of(fields: &mut Fields) -> Decoded<Self> {
        let due_in_ms = u64::try_from(fields.integer()?).ok();
        // The one and the other: `0`, or `0 1700000000000`.
        let counted = fields.text()?;
        let mut words = counted.split(' ').map(str::parse);
        let (ready, stepped_ms) = (words.next(), words.next());
        let malformed = |_| Malformed("no number");
        let ready = ready.unwrap_or(Ok(0)).map_err(malformed)?;
        let stepped_ms = stepped_ms.transpose().map_err(malformed)?;
        let mut list = fields.list()?;
        let mut sessions = Vec::with_capacity(list.left());
        while list.left() > 0 {
            sessions.push(list.parsed()?);
        }
        let (over, tag) = (fields.flag()?, fields.text()?);
        Ok(Self {
            due_in_ms,
            ready,
            stepped_ms,
            sessions,
            over,
            tag,
        })
    }
}

pub(super) fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Decoded<&'a [u8]> {
    let (taken, after) = rest
        .split_at_checked(bytes)
        .ok_or(Malformed("a short record"))?;
    *rest = after;
    Ok(taken)
}

pub(super) fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(super) fn small(number: u64) -> Decoded<u16> {
    u16::try_from(number).map_err(|_| Malformed("a number that is too large"))
}

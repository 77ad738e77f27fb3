//! The fields of every message that is served, as one table: requests in JSON and in protobuf are
//! read by it.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

/// The messages, a line each: its name, then `NAME:NUMBER:TYPE` of every field, the number being
/// that of protobuf (Kubernetes 1.33, `generated.proto`). `[]` is a list and `{}` a map of texts to
/// what follows; `?` marks a number or switch that protobuf writes only when it is set, so that 0
/// means something; the fields of `*` stand in the outer object.
static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let lines = include_str!("messages.txt").lines();
    let messages = lines.filter_map(|line| {
        let (name, fields) = line.split_once(' ')?;
        let mut message = Message::new(name);
        for field in fields.split(' ') {
            let mut parts = field.split(':');
            let name = parts.next()?;
            let number = parts.next()?.parse().ok()?;
            message.add(name, number, Type::parse(parts.next()?));
        }
        Some((name, message))
    });
    messages.collect()
});

/// Returns what is known of a message.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

/// Writes a moment as the message `Time` or `MicroTime` does.
pub(super) fn written(message: &str, time: Timestamp) -> Value {
    let form = match message {
        "Time" => "%Y-%m-%dT%H:%M:%SZ",
        _ => "%Y-%m-%dT%H:%M:%S.%6fZ",
    };
    time.strftime(form).to_string().into()
}

/// A message's fields, by their numbers and by their names.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    by_number: HashMap<u32, (&'static str, Type)>,
    by_name: HashMap<&'static str, Type>,
    /// Messages whose fields stand in this one's object.
    inline: Vec<&'static str>,
}

impl Message {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            by_number: HashMap::new(),
            by_name: HashMap::new(),
            inline: Vec::new(),
        }
    }

    fn add(&mut self, name: &'static str, number: u32, type_: Type) {
        self.by_number.insert(number, (name, type_));
        match type_ {
            Type::One(Scalar::Message(inner)) if name == INLINE => self.inline.push(inner),
            _ => {
                self.by_name.insert(name, type_);
            }
        }
    }

    pub(super) fn numbered(&self, number: u32) -> Option<(&'static str, Type)> {
        self.by_number.get(&number).copied()
    }

    pub(super) fn named(&self, name: &str) -> Option<Type> {
        let inlined = || {
            let mut messages = self.inline.iter().filter_map(|inner| message(inner));
            messages.find_map(|inner| inner.named(name))
        };
        self.by_name.get(name).copied().or_else(inlined)
    }
}

/// The name of a field whose own fields stand in the outer object.
pub(super) const INLINE: &str = "*";

#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    One(Scalar),
    List(Scalar),
    Map(Scalar),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar {
    Text,
    Bytes,
    Number { is_kept: bool, is_long: bool },
    Switch { is_kept: bool },
    Message(&'static str),
}

impl Type {
    fn parse(text: &'static str) -> Self {
        if let Some(rest) = text.strip_prefix("[]") {
            Self::List(Scalar::parse(rest))
        } else if let Some(rest) = text.strip_prefix("{}") {
            Self::Map(Scalar::parse(rest))
        } else {
            Self::One(Scalar::parse(text))
        }
    }
}

impl Scalar {
    fn parse(text: &'static str) -> Self {
        let (name, is_kept) = match text.strip_suffix('?') {
            Some(name) => (name, true),
            None => (text, false),
        };
        match name {
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "int" | "long" => Self::Number {
                is_kept,
                is_long: name == "long",
            },
            "bool" => Self::Switch { is_kept },
            name => Self::Message(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_in_the_table_is_known() {
        let own = ["Time", "MicroTime", "Quantity", "IntOrString", "FieldsV1"];
        for message in MESSAGES.values() {
            for (name, type_) in message.by_number.values() {
                let (Type::One(scalar) | Type::List(scalar) | Type::Map(scalar)) = *type_;
                if let Scalar::Message(inner) = scalar {
                    let is_known = own.contains(&inner) || MESSAGES.contains_key(inner);
                    assert!(is_known, "{}.{name}: {inner}", message.name);
                }
            }
        }
    }
}

//! Request bodies as `kubectl create` sends some of them: protobuf in Kubernetes' envelope.
//!
//! One decoder reads all of them by the table of messages. Answers are JSON always.

mod wire;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::messages::{INLINE, Message, Scalar, Type, message, written};
use wire::{Field, Fields};

pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    #[error("the protobuf body has no magic number")]
    NoMagic,
    #[error("the protobuf body is cut off or malformed")]
    Malformed,
    #[error("nothing is known of the protobuf message {0:?}")]
    UnknownKind(String),
    #[error("the protobuf field {0} has not its type")]
    WrongType(&'static str),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// Reads a body: the object as it would stand in JSON.
pub(super) fn decode(body: &[u8]) -> Result<Value> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut type_, mut raw) = (Value::Null, &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Field::Bytes(meta)) => type_ = type_meta(meta)?,
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let kind = type_["kind"].as_str().unwrap_or_default();
    let mut object = Map::new();
    read(known(kind)?, raw, &mut object)?;
    object.insert("apiVersion".into(), type_["apiVersion"].take());
    object.insert("kind".into(), type_["kind"].take());
    Ok(Value::Object(object))
}

fn type_meta(bytes: &[u8]) -> Result<Value> {
    let mut meta = json!({});
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(version)) => meta["apiVersion"] = text("apiVersion", version)?,
            (2, Field::Bytes(kind)) => meta["kind"] = text("kind", kind)?,
            _ => {}
        }
    }
    Ok(meta)
}

fn text(name: &'static str, bytes: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(bytes).map_err(|_| ProtobufError::WrongType(name))?;
    Ok(text.into())
}

fn known(name: &str) -> Result<&'static Message> {
    message(name).ok_or_else(|| ProtobufError::UnknownKind(name.to_owned()))
}

fn read(message: &Message, bytes: &[u8], object: &mut Map<String, Value>) -> Result<()> {
    for field in Fields(bytes) {
        let (number, field) = field?;
        // What is newer than this table is not known to the rest either.
        let Some((name, type_)) = message.numbered(number) else {
            continue;
        };
        match type_ {
            Type::One(Scalar::Message(inner)) if name == INLINE => {
                read(known(inner)?, field.bytes(name)?, object)?;
            }
            Type::One(scalar) => {
                if let Some(value) = one(name, scalar, field)? {
                    object.insert(name.to_owned(), value);
                }
            }
            Type::List(scalar) => {
                let list = object.entry(name).or_insert_with(|| json!([]));
                if let (Value::Array(list), Some(value)) = (list, element(name, scalar, field)?) {
                    list.push(value);
                }
            }
            Type::Map(scalar) => {
                let map = object.entry(name).or_insert_with(|| json!({}));
                let (key, value) = entry(name, scalar, field.bytes(name)?)?;
                map[key] = value;
            }
        }
    }
    Ok(())
}

/// A value that stands alone; empty ones are written whether they are set or not, and are left out.
fn one(name: &'static str, scalar: Scalar, field: Field<'_>) -> Result<Option<Value>> {
    let value = element(name, scalar, field)?;
    Ok(value.filter(|value| match scalar {
        Scalar::Text => value != "",
        Scalar::Number { is_kept, .. } => is_kept || value != 0,
        Scalar::Switch { is_kept } => is_kept || value != false,
        Scalar::Bytes | Scalar::Message(_) => true,
    }))
}

fn element(name: &'static str, scalar: Scalar, field: Field<'_>) -> Result<Option<Value>> {
    Ok(Some(match scalar {
        Scalar::Text => text(name, field.bytes(name)?)?,
        Scalar::Bytes => json!(ByteString(field.bytes(name)?.to_vec())),
        Scalar::Number { .. } => field.number(name)?.cast_signed().into(),
        Scalar::Switch { .. } => (field.number(name)? != 0).into(),
        Scalar::Message(message) => return value(name, message, field.bytes(name)?),
    }))
}

fn entry(name: &'static str, scalar: Scalar, bytes: &[u8]) -> Result<(String, Value)> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, field) => {
                let text = std::str::from_utf8(field.bytes(name)?);
                key = text.map_err(|_| ProtobufError::WrongType(name))?.to_owned();
            }
            (2, field) => value = element(name, scalar, field)?,
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| json!(""))))
}

/// A message; some are a text or number in JSON.
fn value(name: &'static str, message: &'static str, bytes: &[u8]) -> Result<Option<Value>> {
    let mut numbers = [0_i64; 4];
    let mut texts = [None; 4];
    if matches!(
        message,
        "Time" | "MicroTime" | "Quantity" | "IntOrString" | "FieldsV1"
    ) {
        for field in Fields(bytes) {
            match field? {
                (at @ 1..=3, Field::Number(number)) => numbers[at as usize] = number.cast_signed(),
                (at @ 1..=3, Field::Bytes(bytes)) => texts[at as usize] = Some(bytes),
                _ => {}
            }
        }
    }
    Ok(Some(match message {
        "Time" | "MicroTime" => {
            let [_, seconds, nanoseconds, _] = numbers;
            if seconds == 0 && nanoseconds == 0 {
                return Ok(None);
            }
            let nanoseconds =
                i32::try_from(nanoseconds).map_err(|_| ProtobufError::WrongType(name))?;
            let time = Timestamp::new(seconds, nanoseconds);
            let time = time.map_err(|_| ProtobufError::WrongType(name))?;
            written(message, time)
        }
        "Quantity" => text(name, texts[1].unwrap_or_default())?,
        "IntOrString" if numbers[1] == 0 => numbers[2].into(),
        "IntOrString" => text(name, texts[3].unwrap_or_default())?,
        "FieldsV1" => serde_json::from_slice(texts[1].unwrap_or_default())
            .map_err(|_| ProtobufError::WrongType(name))?,
        message => {
            let mut object = Map::new();
            read(known(message)?, bytes, &mut object)?;
            Value::Object(object)
        }
    }))
}

#[cfg(test)]
mod tests;

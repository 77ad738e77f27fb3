//! Checked names and numbers. Parsing is the check; serde goes through it too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::limits::{KEY_BYTES_MAX, WORKER_NAME_BYTES_MAX};

/// Why a name or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// A queue name that is not one or two DNS labels.
    #[error(
        "queue name {0:?} must be a DNS label (lower-case letters, digits and '-', at most 63 \
         characters), optionally after a namespace and a dot"
    )]
    QueueName(String),
    /// A namespace that is no DNS label.
    #[error(
        "namespace {0:?} must be a DNS label (lower-case letters, digits and '-', at most 63 \
         characters)"
    )]
    Namespace(String),
    /// A text that is empty or too long, or has control characters.
    #[error("{what} must be 1 to {bytes_max} bytes without control characters, got {bytes}")]
    Text {
        /// What the text is.
        what: &'static str,
        /// Its bound, in bytes.
        bytes_max: usize,
        /// Its length, in bytes.
        bytes: usize,
    },
    /// A session id that is not 16 hexadecimal digits.
    #[error("session id {0:?} must be 16 hexadecimal digits")]
    SessionId(String),
    /// A hash or the id of a token that is not so many hexadecimal digits.
    #[error("{what} must be {digits} hexadecimal digits")]
    Hex {
        /// What it is.
        what: &'static str,
        /// How many digits it has.
        digits: usize,
    },
    /// A queue uid that is no UUID.
    #[error("queue uid {0:?} must be a UUID")]
    QueueUid(String),
}

macro_rules! serde_by_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// The name of a queue: a DNS label in a namespace. `images` means `default.images`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName {
    full: Box<str>,
    dot: u8,
}

impl QueueName {
    /// The namespace of a name that gives none.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.full[..usize::from(self.dot)]
    }

    /// Returns the name inside its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.full[usize::from(self.dot) + 1..]
    }

    /// Returns `namespace.name`.
    #[must_use]
    pub fn full(&self) -> &str {
        &self.full
    }
}

impl FromStr for QueueName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (namespace, name) = text
            .split_once('.')
            .unwrap_or((Self::DEFAULT_NAMESPACE, text));
        if !is_dns_label(namespace) || !is_dns_label(name) {
            return Err(InvalidId::QueueName(text.chars().take(160).collect()));
        }
        let dot = u8::try_from(namespace.len()).expect("a DNS label has at most 63 bytes");
        Ok(Self {
            full: format!("{namespace}.{name}").into(),
            dot,
        })
    }
}

/// Shows `name` in the default namespace and `namespace.name` in any other.
impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace() == Self::DEFAULT_NAMESPACE {
            f.write_str(self.name())
        } else {
            f.write_str(&self.full)
        }
    }
}

serde_by_text!(QueueName);

/// The first half of a queue's name: what belongs together, and what tokens are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Box<str>);

impl Namespace {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(QueueName::DEFAULT_NAMESPACE.into())
    }
}

impl FromStr for Namespace {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if is_dns_label(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId::Namespace(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_by_text!(Namespace);

/// RFC 1123 label: 1 to 63 lower-case letters, digits and inner hyphens.
fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// The number of an item in its queue: 1, 2, … in the order of pushing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ItemId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a lease: grows with every lease call that hands out items and never repeats.
///
/// With the item's id it is the fencing token of a settle.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LeaseNumber(pub u64);

impl fmt::Display for LeaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running worker process, as the service knows it; minted by the service.
///
/// Sixteen hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let refused = || InvalidId::SessionId(text.chars().take(40).collect());
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refused())
    }
}

serde_by_text!(SessionId);

/// The identity of one queue; a queue that is created again under the same name has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueUid(pub u128);

impl fmt::Display for QueueUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).fmt(f)
    }
}

impl FromStr for QueueUid {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text)
            .map(|uuid| Self(uuid.as_u128()))
            .map_err(|_| InvalidId::QueueUid(text.chars().take(40).collect()))
    }
}

serde_by_text!(QueueUid);

/// The id of a token: the first 64 bits of its hash, which nobody can sign in with.
///
/// Sixteen hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes: [u8; 8] = from_hex(text).ok_or(InvalidId::Hex {
            what: "token id",
            digits: 16,
        })?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

serde_by_text!(TokenId);

/// The SHA-256 of a token, which is all that a service keeps of it.
///
/// Sixty-four hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Returns the id of the token that has this hash.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        TokenId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenHash {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        from_hex(text).map(Self).ok_or(InvalidId::Hex {
            what: "hash",
            digits: 64,
        })
    }
}

serde_by_text!(TokenHash);

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (nth, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * nth..2 * nth + 2], 16).ok()?;
    }
    Some(bytes)
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let fits = !text.is_empty() && text.len() <= $bytes_max;
                if fits && !text.chars().any(char::is_control) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId::Text { what: $what, bytes_max: $bytes_max, bytes: text.len() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_by_text!($name);
    };
}

checked_text!(
    /// The name of a worker: a label that a person recognises; in a Pod `<pod uid>.<container>`.
    WorkerName,
    "worker name",
    WORKER_NAME_BYTES_MAX
);

checked_text!(
    /// What the producer calls an item. Unique in its queue for the queue's life.
    ItemKey,
    "item key",
    KEY_BYTES_MAX
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_name_without_namespace_is_in_the_default_one() {
        let name: QueueName = "images".parse().unwrap();
        assert_eq!(name.full(), "default.images");
        assert_eq!(name.to_string(), "images");
        assert_eq!(name, "default.images".parse().unwrap());
        let other: QueueName = "team-a.images".parse().unwrap();
        assert_eq!((other.namespace(), other.name()), ("team-a", "images"));
        assert_eq!(other.to_string(), "team-a.images");
    }

    #[test]
    fn queue_names_that_are_no_dns_labels_are_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a.b.c",
            ".a",
            "a.",
            "é",
            long.as_str(),
        ] {
            assert!(text.parse::<QueueName>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn ids_survive_their_text() {
        let session = SessionId(0x0123_4567_89ab_cdef);
        assert_eq!(session.to_string().parse::<SessionId>().unwrap(), session);
        assert!("+123456789abcdef".parse::<SessionId>().is_err());
        let uid = QueueUid(7);
        assert_eq!(uid.to_string().parse::<QueueUid>().unwrap(), uid);
    }

    #[test]
    fn a_token_hash_survives_its_text_and_begins_with_the_id() {
        let text = format!("0123456789abcdef{}", "f0".repeat(24));
        let hash: TokenHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.id().to_string(), "0123456789abcdef");
        assert_eq!(hash.id().to_string().parse(), Ok(hash.id()));
        assert!("+1".repeat(32).parse::<TokenHash>().is_err());
        assert!("é".repeat(32).parse::<TokenHash>().is_err());
    }

    #[test]
    fn keys_and_worker_names_have_bounds() {
        assert!("x".repeat(KEY_BYTES_MAX).parse::<ItemKey>().is_ok());
        assert!("x".repeat(KEY_BYTES_MAX + 1).parse::<ItemKey>().is_err());
        assert!("".parse::<WorkerName>().is_err());
        assert!("a\nb".parse::<WorkerName>().is_err());
    }
}

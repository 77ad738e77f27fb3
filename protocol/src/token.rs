//! Tokens: who may do what, and where.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Timestamp;
use crate::ids::{Namespace, QueueName, TokenHash, TokenId};
use crate::item::OutOfBounds;
use crate::limits::{TOKEN_LIFE_MS_MAX, TOKEN_NOTE_BYTES_MAX};

/// What the holder of a token may do. A token has one role or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Pushes, cancels, seals, and sees the status.
    Producer,
    /// Leases and settles, and sees the status.
    Worker,
    /// Sees everything, changes nothing.
    Observer,
    /// Does everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Producer, Self::Worker, Self::Observer, Self::Admin];

    /// Returns the role as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Observer => "observer",
            Self::Admin => "admin",
        }
    }
}

/// Where a token holds.
///
/// On the wire two fields: `namespace`, which is `*` for all of them, and `queue`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In one namespace.
    Namespace(Namespace),
    /// For one queue.
    Queue(QueueName),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScopeFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<QueueName>,
}

impl Scope {
    /// Makes a scope of its two fields; neither of them means the default namespace.
    ///
    /// # Errors
    ///
    /// A sentence, when the namespace is none or not the queue's.
    pub fn new(namespace: Option<&str>, queue: Option<QueueName>) -> Result<Self, String> {
        match (namespace, queue) {
            (None, None) => Ok(Self::Namespace(Namespace::default())),
            (Some("*"), None) => Ok(Self::All),
            (Some(text), None) => {
                let namespace = text.parse::<Namespace>();
                namespace
                    .map(Self::Namespace)
                    .map_err(|error| error.to_string())
            }
            (Some(text), Some(queue)) if text != queue.namespace() => Err(format!(
                "namespace is {text:?}, and the queue {queue} is in the namespace {:?}",
                queue.namespace()
            )),
            (_, Some(queue)) => Ok(Self::Queue(queue)),
        }
    }

    /// Tells whether a queue lies in this scope.
    #[must_use]
    pub fn has(&self, queue: &QueueName) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => namespace.as_str() == queue.namespace(),
            Self::Queue(own) => own == queue,
        }
    }

    /// Tells whether all of another scope lies in this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::All) | (Self::Queue(_), Self::Namespace(_)) => false,
            (Self::Namespace(own), Self::Namespace(other)) => own == other,
            (_, Self::Queue(queue)) => self.has(queue),
        }
    }

    /// Returns the namespace that the scope lies in; none for all of them.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(namespace.as_str()),
            Self::Queue(queue) => Some(queue.namespace()),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all namespaces"),
            Self::Namespace(namespace) => write!(f, "the namespace {namespace}"),
            Self::Queue(queue) => write!(f, "the queue {queue}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let queue = match self {
            Self::Queue(queue) => Some(queue.clone()),
            Self::All | Self::Namespace(_) => None,
        };
        let namespace = Some(self.namespace().unwrap_or("*").into());
        ScopeFields { namespace, queue }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ScopeFields { namespace, queue } = ScopeFields::deserialize(deserializer)?;
        Self::new(namespace.as_deref(), queue).map_err(de::Error::custom)
    }
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// What its holder may do; at least one role.
    pub roles: Vec<Role>,
    /// The namespace that it holds in, `*` for all; the queue's, or the default one, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    /// The only queue that it holds for; all of its namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// For how long it holds, in milliseconds; until it is revoked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
    /// The SHA-256 of a token that the caller has made; the service mints one when absent.
    ///
    /// The token must be as hard to guess as 256 random bits. A repeat with the same hash takes
    /// the place of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<TokenHash>,
}

impl TokenRequest {
    /// Returns what is out of bounds, if anything is.
    #[must_use]
    pub fn out_of_bounds(&self) -> Option<OutOfBounds> {
        let note_bytes = self.note.as_ref().map_or(0, |note| note.len() as u64);
        let roles = self.roles.len() as u64;
        let life_ms = self.expires_in_ms.unwrap_or(1);
        let bounds = [
            ("roles", roles, 1, Role::ALL.len() as u64, "entries"),
            ("note", note_bytes, 0, TOKEN_NOTE_BYTES_MAX as u64, "bytes"),
            ("expiresInMs", life_ms, 1, TOKEN_LIFE_MS_MAX, "ms"),
        ];
        bounds
            .into_iter()
            .find(|(_, value, min, max, _)| !(min..=max).contains(&value))
            .map(|(field, value, min, max, unit)| OutOfBounds {
                field,
                value,
                min,
                max,
                unit,
            })
    }
}

/// A token as it is shown: everything but the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// Its id, by which it is revoked.
    pub id: TokenId,
    /// What its holder may do.
    pub roles: Vec<Role>,
    /// The namespace that it holds in; `*` for all.
    pub namespace: Box<str>,
    /// The only queue that it holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
}

/// Answer to `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    /// The token, which is shown this once; absent when the caller has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Box<str>>,
    /// What is known about it.
    #[serde(flatten)]
    pub view: TokenView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_contains_what_lies_in_it_and_nothing_else() {
        let all = Scope::new(Some("*"), None).unwrap();
        let team = Scope::new(Some("team"), None).unwrap();
        let other = Scope::new(None, None).unwrap();
        let queue = Scope::new(None, Some("team.q".parse().unwrap())).unwrap();
        let rows = [
            (&all, [true, true, true, true]),
            (&team, [false, true, false, true]),
            (&other, [false, false, true, false]),
            (&queue, [false, false, false, true]),
        ];
        for (scope, wanted) in rows {
            let found = [&all, &team, &other, &queue].map(|inner| scope.contains(inner));
            assert_eq!(found, wanted, "{scope}");
        }
    }

    #[test]
    fn a_scope_survives_its_fields_and_refuses_a_foreign_queue() {
        for json in [
            r#"{"namespace":"*"}"#,
            r#"{"namespace":"team"}"#,
            r#"{"namespace":"team","queue":"team.q"}"#,
        ] {
            let scope: Scope = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&scope).unwrap(), json);
        }
        let foreign = r#"{"namespace":"team","queue":"q"}"#;
        assert!(serde_json::from_str::<Scope>(foreign).is_err());
    }

    #[test]
    fn roles_are_written_as_they_are_serialized() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}

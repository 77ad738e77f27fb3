//! Tokens of Jobs' workers: derived, so that nobody has to keep them.

use gangline_protocol::{QueueName, TokenHash};
use ring::{digest, hmac};

/// What a token begins with, so that a leaked one is recognised.
const PREFIX: &str = "glt_";
/// Keeps these tokens apart from whatever else may once be derived from the same key.
const PURPOSE: &str = "gangline worker token 1";

/// What the tokens of Jobs' workers are derived from.
#[derive(Clone)]
pub(super) struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}

impl TokenKey {
    pub(super) fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// Returns the token for the workers of a Job on a queue, and its hash: always the same.
    pub(super) fn derive(&self, queue: &QueueName, job_uid: &str) -> (String, TokenHash) {
        let text = format!("{PURPOSE}\n{}\n{job_uid}", queue.full());
        let token = format!(
            "{PREFIX}{}",
            sized(hmac::sign(&self.0, text.as_bytes()).as_ref())
        );
        let hash = sized(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        (token, hash)
    }
}

fn sized(bytes: &[u8]) -> TokenHash {
    TokenHash(bytes.try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_that_of_its_key_queue_and_job_alone() {
        let (q, r) = ("team.q".parse().unwrap(), "team.r".parse().unwrap());
        let key = TokenKey::new("secret");
        let (token, hash) = key.derive(&q, "uid-1");
        assert_eq!(key.derive(&q, "uid-1"), (token.clone(), hash));
        for (key, queue, job) in [
            (TokenKey::new("another"), &q, "uid-1"),
            (key.clone(), &r, "uid-1"),
            (key, &q, "uid-2"),
        ] {
            assert_ne!(key.derive(queue, job).0, token);
        }
        // printf 'gangline worker token 1\nteam.q\nuid-1' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            token,
            "glt_fb3052fbe7ac3621b6761167b4c7cf3d8eb0cb4790d9e918c2c87a218b7985c7"
        );
    }
}

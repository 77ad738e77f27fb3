//! The digest of a queue's results.

use crate::ids::ItemId;
use sha2::{Digest as _, Sha256};

/// Sum modulo 2^256 of SHA-256(id as 8 bytes big-endian ‖ result bytes).
///
/// A sum, so that results may be recorded in any order; kept as 32 bytes big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Adds one result.
    pub fn add(&mut self, id: ItemId, result: &str) {
        self.add_hash(Self::of(id, result));
    }

    /// Adds the hash of one result, or a sum of such.
    pub fn add_hash(&mut self, hash: [u8; 32]) {
        let mut carry = 0_u16;
        for (sum, byte) in self.0.iter_mut().zip(hash).rev() {
            let total = u16::from(*sum) + u16::from(byte) + carry;
            *sum = total.to_be_bytes()[1];
            carry = total >> 8;
        }
    }

    /// Returns the hash of one result.
    #[must_use]
    pub fn of(id: ItemId, result: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(id.0.to_be_bytes());
        hasher.update(result.as_bytes());
        hasher.finalize().into()
    }

    /// Returns the sum, big-endian.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> Box<str> {
        hex(&self.0)
    }
}

/// Returns the hexadecimal digits of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> Box<str> {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_order() {
        let (mut one, mut other) = (Digest::default(), Digest::default());
        for id in 1..=50 {
            one.add(ItemId(id), "\"x\"");
            other.add(ItemId(51 - id), "\"x\"");
        }
        assert_eq!(one, other);
        assert_ne!(one, Digest::default());
    }

    #[test]
    fn the_digest_of_one_result_is_its_hash() {
        let mut digest = Digest::default();
        digest.add(ItemId(1), "2");
        assert_eq!(digest.to_hex(), hex(&Digest::of(ItemId(1), "2")));
    }

    #[test]
    fn sums_wrap_around() {
        let mut digest = Digest([0xff; 32]);
        digest.add(ItemId(9), "null");
        let mut expected = Digest::of(ItemId(9), "null");
        for byte in expected.iter_mut().rev() {
            let (value, borrow) = byte.overflowing_sub(1);
            *byte = value;
            if !borrow {
                break;
            }
        }
        assert_eq!(digest.0, expected);
    }
}

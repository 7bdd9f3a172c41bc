//! CHAP (RFC 7143 §12.1, RFC 1994): proof of a shared secret that is never sent.

use std::fmt;

use md5::{Digest, Md5};
use sha2::Sha256;
use thiserror::Error;

/// Bytes of the challenges that the target makes.
pub const CHALLENGE_BYTES: usize = 16;
/// A challenge of the initiator's is no longer (RFC 7143 §12.1.3).
const CHALLENGE_BYTES_MAX: usize = 1024;

/// A shared secret. It is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A name and the secret that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// CHAP_N.
    pub name: String,
    /// Proves it.
    pub secret: Secret,
}

/// The hash of an exchange: CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 5, which everyone has.
    Md5,
    /// 7, which newer initiators prefer.
    Sha256,
}

impl Algorithm {
    /// The first of the initiator's list that is known, in its order of preference.
    pub fn choose(list: &str) -> Option<Self> {
        list.split(',').find_map(|number| match number {
            "5" => Some(Self::Md5),
            "7" => Some(Self::Sha256),
            _ => None,
        })
    }

    /// For CHAP_A.
    pub const fn number(self) -> &'static str {
        match self {
            Self::Md5 => "5",
            Self::Sha256 => "7",
        }
    }

    /// The proof: the hash of identifier, secret and challenge.
    pub fn respond(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => hash::<Md5>(identifier, secret, challenge),
            Self::Sha256 => hash::<Sha256>(identifier, secret, challenge),
        }
    }
}

fn hash<D: Digest>(identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
    let mut digest = D::new();
    digest.update([identifier]);
    digest.update(&secret.0);
    digest.update(challenge);
    digest.finalize().to_vec()
}

/// What the target asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// CHAP_A.
    pub algorithm: Algorithm,
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C; fresh random bytes of the caller's.
    pub bytes: [u8; CHALLENGE_BYTES],
}

/// Why an initiator was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChapError {
    /// The name or the proof is wrong. Which one is not told.
    #[error("the name or the response is wrong")]
    Wrong,
    /// The initiator sent our own challenge back, to have us answer it.
    #[error("the challenge is our own")]
    Reflected,
    /// The challenge is empty or too long.
    #[error("the initiator's challenge has no acceptable length")]
    BadChallenge,
}

impl Challenge {
    /// Checks the initiator's proof. Takes the same time wherever a difference lies.
    pub fn verify(
        &self,
        expected: &Credentials,
        name: &str,
        proof: &[u8],
    ) -> Result<(), ChapError> {
        let right = self
            .algorithm
            .respond(self.identifier, &expected.secret, &self.bytes);
        let same_name = equal(name.as_bytes(), expected.name.as_bytes());
        if equal(&right, proof) & same_name {
            Ok(())
        } else {
            Err(ChapError::Wrong)
        }
    }

    /// The target's own proof for the initiator's challenge.
    pub fn answer(
        &self,
        own: &Credentials,
        identifier: u8,
        challenge: &[u8],
    ) -> Result<Vec<u8>, ChapError> {
        if challenge == self.bytes {
            return Err(ChapError::Reflected);
        }
        if challenge.is_empty() || challenge.len() > CHALLENGE_BYTES_MAX {
            return Err(ChapError::BadChallenge);
        }
        Ok(self.algorithm.respond(identifier, &own.secret, challenge))
    }
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b));
    (differences == 0) & (one.len() == other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_responses_are_those_of_other_implementations() {
        // python3: hashlib.md5(b'\x01' + b'secret' + bytes(range(16))).hexdigest()
        let challenge: Vec<u8> = (0..16).collect();
        let md5 = Algorithm::Md5.respond(1, &Secret::new("secret"), &challenge);
        let sha = Algorithm::Sha256.respond(1, &Secret::new("secret"), &challenge);
        assert_eq!(
            crate::iscsi::text::hexadecimal(&md5),
            "0x740e86463bda3a4d7017d6e0fba0699d"
        );
        assert_eq!(
            crate::iscsi::text::hexadecimal(&sha),
            "0x28b96c916cf784528bbfaa6ad7e012cab293437604aae8d66a3295b319132cef"
        );
    }

    #[test]
    fn a_wrong_name_and_a_wrong_proof_are_told_alike() {
        let credentials = Credentials {
            name: "host".into(),
            secret: Secret::new("secret"),
        };
        let challenge = Challenge {
            algorithm: Algorithm::Md5,
            identifier: 9,
            bytes: [7; CHALLENGE_BYTES],
        };
        let proof = Algorithm::Md5.respond(9, &credentials.secret, &challenge.bytes);
        assert_eq!(challenge.verify(&credentials, "host", &proof), Ok(()));
        assert_eq!(
            challenge.verify(&credentials, "hos", &proof),
            Err(ChapError::Wrong)
        );
        assert_eq!(
            challenge.verify(&credentials, "host", &proof[1..]),
            Err(ChapError::Wrong)
        );
        assert_eq!(
            challenge.verify(&credentials, "host", &[0; 16]),
            Err(ChapError::Wrong)
        );
    }

    #[test]
    fn a_reflected_challenge_is_not_answered() {
        let own = Credentials {
            name: "target".into(),
            secret: Secret::new("other"),
        };
        let challenge = Challenge {
            algorithm: Algorithm::Md5,
            identifier: 9,
            bytes: [7; CHALLENGE_BYTES],
        };
        assert_eq!(
            challenge.answer(&own, 1, &[7; 16]),
            Err(ChapError::Reflected)
        );
        assert_eq!(challenge.answer(&own, 1, &[]), Err(ChapError::BadChallenge));
        assert_eq!(
            challenge.answer(&own, 1, &[0; 1025]),
            Err(ChapError::BadChallenge)
        );
        assert!(challenge.answer(&own, 1, &[0; 16]).is_ok());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials {
            name: "host".into(),
            secret: Secret::new("hunter2"),
        };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn the_first_known_algorithm_is_chosen() {
        assert_eq!(Algorithm::choose("8,7,6,5"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::choose("5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose("6,8"), None);
        assert_eq!(Algorithm::choose(""), None);
    }
}

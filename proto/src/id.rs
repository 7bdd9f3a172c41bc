//! Identifiers. Each kind is its own type, so that one cannot stand where another is meant.
//!
//! Volumes, replicas, snapshots, disks and clusters carry 128 random bits: a disk moved to another
//! cluster can never be taken for one of its own. Layers are numbered by the managers, because a
//! layer has the same id on every replica of its volume.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {expected}")]
pub struct ParseIdError {
    /// What was to be read: "volume id", "node name"…
    pub kind: &'static str,
    /// The shape that would have been accepted.
    pub expected: &'static str,
    /// The text as it came, cut at 80 characters.
    pub text: String,
}

impl ParseIdError {
    fn new(kind: &'static str, expected: &'static str, text: &str) -> Self {
        Self {
            kind,
            expected,
            text: text.chars().take(80).collect(),
        }
    }
}

const HEX_DIGITS_EXPECTED: &str = "32 lower-case hexadecimal digits";

fn parse_hex_128(kind: &'static str, text: &str) -> Result<u128, ParseIdError> {
    let canonical =
        text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !canonical {
        return Err(ParseIdError::new(kind, HEX_DIGITS_EXPECTED, text));
    }
    u128::from_str_radix(text, 16).map_err(|_| ParseIdError::new(kind, HEX_DIGITS_EXPECTED, text))
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id with these 128 bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// A new id from the operating system's randomness. Not for pure code.
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The 128 bits.
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex_128($kind, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

random_id!(
    /// A virtual disk.
    VolumeId,
    "volume id"
);
random_id!(
    /// One full copy of a volume on one disk.
    ReplicaId,
    "replica id"
);
random_id!(
    /// A user-visible name for a sealed point of a volume.
    SnapshotId,
    "snapshot id"
);
random_id!(
    /// Snapshots of several volumes that are one consistent cut.
    SnapshotGroupId,
    "snapshot group id"
);
random_id!(
    /// A disk (a directory) that a blockd stores replicas on.
    DiskId,
    "disk id"
);
random_id!(
    /// One Raft group of managers and all that they know.
    ClusterId,
    "cluster id"
);

/// A layer: the blocks of a volume written in one interval. Numbered by the managers from 1 and
/// unique in a cluster; the same layer carries the same id on every replica. Shown as 16
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(u64);

impl LayerId {
    /// The layer with this number; 0 is no layer.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        if raw == 0 { None } else { Some(Self(raw)) }
    }

    /// The number, never 0.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({:x})", self.0)
    }
}

impl FromStr for LayerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const EXPECTED: &str = "16 hexadecimal digits, not all 0";
        let wrong = || ParseIdError::new("layer id", EXPECTED, text);
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let raw = u64::from_str_radix(text, 16).map_err(|_| wrong())?;
        Self::from_raw(raw).ok_or_else(wrong)
    }
}

/// The name an operator gave a host: 1 to 63 of `a-z 0-9 - .`, beginning and ending with a letter
/// or digit, as Kubernetes names nodes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Box<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let edge = |b: Option<u8>| b.is_some_and(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
        let legal = text.len() <= 63
            && text.bytes().all(inner)
            && edge(text.bytes().next())
            && edge(text.bytes().last());
        if legal {
            Ok(Self(text.into()))
        } else {
            Err(ParseIdError::new(
                "node name",
                "1 to 63 of a-z, 0-9, '-', '.', with a letter or digit at both ends",
                text,
            ))
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({})", self.0)
    }
}

/// The secret that opens the replicas of one volume: made by the managers, given to its engine and
/// to the blockd of each replica, never printed.
#[derive(Clone, Copy)]
pub struct Credential([u8; 32]);

impl Credential {
    /// The credential with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new secret from the operating system's randomness. Not for pure code.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The credential in these bytes; `None` unless there are 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for the wire and the store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Credential {
    /// Takes the same time wherever the first difference stands.
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0u8, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_alike() {
        let id = VolumeId::from_bits(0x1234);
        assert_eq!(id.to_string(), "00000000000000000000000000001234");
        assert_eq!(id.to_string().parse(), Ok(id));
        let layer = LayerId::from_raw(0xab).unwrap();
        assert_eq!(layer.to_string().parse(), Ok(layer));
    }

    #[test]
    fn ids_of_another_shape_are_refused() {
        for text in [
            "",
            "12",
            "+0000000000000000000000000001234",
            "G0000000000000000000000000001234",
        ] {
            assert!(text.parse::<VolumeId>().is_err(), "{text}");
        }
        for text in ["0000000000000000", "1", "+00000000000000a"] {
            assert!(text.parse::<LayerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn node_names_follow_the_dns_shape() {
        for text in ["n1", "worker-3.example", "0"] {
            assert!(text.parse::<NodeName>().is_ok(), "{text}");
        }
        let long = "x".repeat(64);
        for text in ["", "-a", "a-", "A", "a b", "a/b", "..", long.as_str()] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        assert_eq!(
            format!("{:?}", Credential::from_bytes([7; 32])),
            "Credential(…)"
        );
    }
}

//! Text negotiation's syntax: `key=value` pairs, each ended by a NUL (RFC 7143 §6.1).

use thiserror::Error;

/// A key's name is no longer (RFC 7143 §6.1).
pub const KEY_BYTES_MAX: usize = 63;
/// A value is no longer, unless its key says otherwise: only CHAP's binary values do, and those
/// are at most 1024 bytes, in hexadecimal 2050 characters (RFC 7143 §6.1, §12.1.3).
pub const VALUE_BYTES_MAX: usize = 255;
/// The longest value of any key.
pub const LARGE_VALUE_BYTES_MAX: usize = 2050;
/// Pairs in one negotiation: each known key once, and room for what is not understood.
pub const PAIRS_MAX: usize = 1024;

/// Why text is not a list of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// Not ASCII, or not UTF-8 where a name may be so.
    #[error("the text is not UTF-8")]
    Encoding,
    /// Something between two NULs has no `=`.
    #[error("a pair has no '='")]
    NoEquals,
    /// An empty key, a longer one than allowed, or characters that no key has.
    #[error("a key is empty, too long or malformed")]
    Key,
    /// A value longer than its key allows.
    #[error("a value is too long")]
    Value,
    /// More pairs than any negotiation needs.
    #[error("too many pairs")]
    TooMany,
    /// A key appears twice.
    #[error("a key appears twice")]
    Duplicate,
}

/// One pair of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key, 1 to [`KEY_BYTES_MAX`] characters.
    pub key: String,
    /// The value, which may be empty.
    pub value: String,
}

/// Reads the pairs of a whole request. Padding NULs at the end are skipped.
pub fn parse(text: &[u8]) -> Result<Vec<Pair>, TextError> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for bytes in text
        .split(|&byte| byte == 0)
        .filter(|bytes| !bytes.is_empty())
    {
        if pairs.len() == PAIRS_MAX {
            return Err(TextError::TooMany);
        }
        let pair = parse_pair(bytes)?;
        if !seen.insert(pair.key.clone()) {
            return Err(TextError::Duplicate);
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

fn parse_pair(bytes: &[u8]) -> Result<Pair, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TextError::Encoding)?;
    let (key, value) = text.split_once('=').ok_or(TextError::NoEquals)?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(is_key_character) {
        return Err(TextError::Key);
    }
    let value_bytes_max = match key {
        "CHAP_C" | "CHAP_R" | "CHAP_N" => LARGE_VALUE_BYTES_MAX,
        _ => VALUE_BYTES_MAX,
    };
    if value.len() > value_bytes_max {
        return Err(TextError::Value);
    }
    Ok(Pair {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

/// RFC 7143 §6.1: a key-name has letters, digits and `.-+@_`; extension keys also `/` and `#`.
fn is_key_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-+@_/#".contains(&byte)
}

/// Pairs on their way out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair.
    pub fn push(&mut self, key: &str, value: &str) {
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next at most `bytes_max` bytes; what is left goes with the next PDU (the C bit).
    pub fn take(&mut self, bytes_max: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(self.bytes.len().min(bytes_max));
        std::mem::replace(&mut self.bytes, rest)
    }
}

/// A number as RFC 7143 §6.1 writes them: decimal, or hexadecimal after `0x`.
pub fn parse_number(value: &str) -> Option<u32> {
    let (digits, radix) = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (value, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// `Yes` or `No`.
pub fn parse_boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// `Yes` or `No`.
pub fn boolean(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// A binary value: hexadecimal after `0x`, or base64 after `0b` (RFC 7143 §6.1).
pub fn parse_binary(value: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = value.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => parse_hexadecimal(digits.as_bytes()),
        "0b" | "0B" => parse_base64(digits.as_bytes()),
        _ => None,
    }
}

fn parse_hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() {
        return None;
    }
    let nibble = |&digit: &u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let nibbles: Vec<u8> = digits.iter().map(nibble).collect::<Option<_>>()?;
    // An odd number of digits lacks the leading zero.
    let odd = nibbles.len() % 2;
    let (first, rest) = nibbles.split_at(odd);
    let pairs = rest.chunks_exact(2).filter_map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    Some(first.iter().copied().chain(pairs).collect())
}

fn parse_base64(digits: &[u8]) -> Option<Vec<u8>> {
    let unpadded = match digits {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] => rest,
        all => all,
    };
    if digits.is_empty() || !digits.len().is_multiple_of(4) {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0_u32);
    for &digit in unpadded {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x3fff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(((bits >> count) & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// A binary value in hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_text_is_refused() {
        assert_eq!(parse(b"HeaderDigest\0"), Err(TextError::NoEquals));
        assert_eq!(parse(b"=1\0"), Err(TextError::Key));
        assert_eq!(parse(b"Bad Key=1\0"), Err(TextError::Key));
        assert_eq!(parse(b"A=\xff\0"), Err(TextError::Encoding));
        assert_eq!(parse(b"A=1\0B=2\0A=1\0"), Err(TextError::Duplicate));
        assert_eq!(
            parse(format!("{}=1\0", "k".repeat(64)).as_bytes()),
            Err(TextError::Key)
        );
        assert_eq!(
            parse(format!("A={}\0", "v".repeat(256)).as_bytes()),
            Err(TextError::Value)
        );
        assert!(parse(format!("CHAP_C={}\0", "v".repeat(2050)).as_bytes()).is_ok());
        assert!(parse(format!("{}=1\0", "k".repeat(63)).as_bytes()).is_ok());
    }

    #[test]
    fn numbers_come_in_both_bases_and_stay_in_range() {
        assert_eq!(parse_number("0x40"), Some(64));
        assert_eq!(parse_number("4294967295"), Some(u32::MAX));
        for wrong in ["", "0x", "-1", "+1", "4294967296", "1e3", " 1", "12a"] {
            assert_eq!(parse_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn base64_is_read() {
        assert_eq!(parse_binary("0bAP8Q"), Some(vec![0, 255, 16]));
        assert_eq!(parse_binary("0bAP8="), Some(vec![0, 255]));
        assert_eq!(parse_binary("0bAA=="), Some(vec![0]));
        for wrong in ["0b", "0bA", "0b!!!!", "AA==", "é", "0x", "0xzz"] {
            assert_eq!(parse_binary(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            pairs in prop::collection::btree_map("[A-Za-z][A-Za-z0-9.+@_-]{0,62}", "[ -~]{0,200}", 0..20)
        ) {
            let mut answer = Answer::new();
            for (key, value) in &pairs {
                answer.push(key, value);
            }
            let mut bytes = Vec::new();
            while !answer.is_empty() {
                bytes.extend(answer.take(17));
            }
            let read = parse(&bytes).unwrap();
            let read: std::collections::BTreeMap<_, _> =
                read.into_iter().map(|pair| (pair.key, pair.value)).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn arbitrary_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = (parse_number(text), parse_binary(text), parse_boolean(text));
            }
        }

        #[test]
        fn binary_values_round_trip(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            prop_assert_eq!(parse_binary(&hexadecimal(&bytes)), Some(bytes));
        }
    }
}

//! TransportIDs of iSCSI initiators (SPC-4 7.6.4.6): in what is told, and in what is asked for.
//!
//! ```text
//! 0  format (bits 7 and 6), protocol 5    2  u16 bytes that follow, at least 20, a multiple of 4
//! 1  zero                                 4  the name, ended and padded with zeros
//! ```
//!
//! Format 0 names an initiator device. Format 1 names one port of it: `,i,0x` and the ISID follow
//! the name.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use crate::scsi::nexus::InitiatorPort;
use crate::scsi::sense::{AdditionalSense, Sense};

const DEVICE_FORMAT: u8 = 0x00;
const PORT_FORMAT: u8 = 0x40;
const ISCSI: u8 = 0x05;
const HEADER_BYTES: usize = 4;
const NAME_BYTES_MIN: usize = 20;
const BEFORE_ISID: &str = ",i,0x";

/// Whom a TransportID names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TransportId {
    /// Every port of the initiator of this name.
    Device(String),
    Port(InitiatorPort),
}

impl TransportId {
    /// As it is told and sent.
    pub(super) fn encode(&self) -> BytesMut {
        let (format, name) = match self {
            Self::Device(name) => (DEVICE_FORMAT, name.clone()),
            Self::Port(port) => {
                let mut name = format!("{}{BEFORE_ISID}", port.name);
                for byte in port.isid {
                    let _ = write!(name, "{byte:02x}");
                }
                (PORT_FORMAT, name)
            }
        };
        let padded = (name.len() + 1).next_multiple_of(4).max(NAME_BYTES_MIN);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + padded);
        out.put_slice(&[format | ISCSI, 0]);
        out.put_u16(u16::try_from(padded).unwrap_or(u16::MAX));
        out.put_slice(name.as_bytes());
        out.put_bytes(0, padded - name.len());
        out
    }

    /// Takes the first one off a list, which begins at this byte of the parameter list.
    ///
    /// # Errors
    ///
    /// PARAMETER LIST LENGTH ERROR when it is cut short, INVALID FIELD IN PARAMETER LIST when it
    /// names no iSCSI initiator.
    pub(super) fn decode(list: &[u8], at: usize) -> Result<(Self, &[u8]), Sense> {
        let cut_short = || Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
        let wrong = |place: usize| Sense::invalid_parameter(at + place);
        let (header, rest) = list.split_at_checked(HEADER_BYTES).ok_or_else(cut_short)?;
        let &[kind, reserved, high, low] = header else {
            return Err(cut_short());
        };
        if reserved != 0 {
            return Err(wrong(1));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < NAME_BYTES_MIN || !length.is_multiple_of(4) {
            return Err(wrong(2));
        }
        let (field, rest) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        let end = field.iter().position(|byte| *byte == 0);
        let (name, padding) = field.split_at(end.ok_or(wrong(HEADER_BYTES))?);
        let name = std::str::from_utf8(name).map_err(|_| wrong(HEADER_BYTES))?;
        let named = match kind {
            _ if padding.iter().any(|byte| *byte != 0) => None,
            kind if kind == DEVICE_FORMAT | ISCSI => device(name),
            kind if kind == PORT_FORMAT | ISCSI => port(name),
            _ => return Err(wrong(0)),
        };
        Ok((named.ok_or(wrong(HEADER_BYTES))?, rest))
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b',' || !byte.is_ascii();
    let length = 1..=InitiatorPort::NAME_BYTES_MAX;
    length.contains(&name.len()) && name.bytes().all(plain)
}

fn device(name: &str) -> Option<TransportId> {
    is_name(name).then(|| TransportId::Device(name.to_owned()))
}

fn port(text: &str) -> Option<TransportId> {
    let (name, digits) = text.rsplit_once(BEFORE_ISID)?;
    let mut isid = [0; 6];
    let plain = digits.len() == 2 * isid.len() && digits.bytes().all(|d| d.is_ascii_hexdigit());
    if !plain || !is_name(name) {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    isid.copy_from_slice(&number.to_be_bytes()[2..]);
    let name = name.to_owned();
    Some(TransportId::Port(InitiatorPort { name, isid }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = TransportId> {
        let name = prop_oneof![
            "iqn\\.20[0-9]{2}-0[1-9]\\.[a-z]{1,20}:[a-z0-9.:-]{0,180}",
            "eui\\.[0-9A-F]{16}",
            "naa\\.[0-9A-F]{16}",
        ];
        (name, proptest::option::of(any::<[u8; 6]>())).prop_map(|(name, isid)| match isid {
            None => TransportId::Device(name),
            Some(isid) => TransportId::Port(InitiatorPort { name, isid }),
        })
    }

    proptest! {
        #[test]
        fn what_is_told_can_be_asked_for(ids in proptest::collection::vec(any_id(), 1..5)) {
            let mut list = Vec::new();
            for id in &ids {
                let bytes = id.encode();
                prop_assert!(bytes.len() >= 24 && bytes.len().is_multiple_of(4));
                list.extend(bytes);
            }
            let mut rest = &list[..];
            for id in &ids {
                let (read, after) = TransportId::decode(rest, 24).unwrap();
                prop_assert_eq!(&read, id);
                for short in 0..rest.len() - after.len() {
                    prop_assert!(TransportId::decode(&rest[..short], 24).is_err());
                }
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn whatever_comes_is_read_or_refused(
            head in prop_oneof![Just(0x05_u8), Just(0x45), any::<u8>()],
            words in 0_u8..12,
            mut bytes in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..64),
        ) {
            let mut list = vec![head, 0, 0, 4 * words];
            list.append(&mut bytes);
            if let Ok((id, rest)) = TransportId::decode(&list, 0) {
                prop_assert_eq!(rest.len() + 4 + 4 * usize::from(words), list.len());
                prop_assert_eq!(TransportId::decode(&id.encode(), 0).unwrap().0, id);
            }
        }
    }

    /// A TransportID with this text, ended and padded.
    fn made(kind: u8, text: &str) -> Vec<u8> {
        let padded = (text.len() + 1).next_multiple_of(4).max(20);
        let mut out = vec![kind, 0, 0, u8::try_from(padded).unwrap()];
        out.extend(text.as_bytes());
        out.resize(4 + padded, 0);
        out
    }

    #[test]
    fn only_initiators_of_iscsi_are_named() {
        let good = made(0x45, "iqn.2026-01.io.example:a,i,0x400000ABCDEF");
        let (id, _) = TransportId::decode(&good, 0).unwrap();
        let isid = [0x40, 0, 0, 0xab, 0xcd, 0xef];
        let name = "iqn.2026-01.io.example:a".to_owned();
        assert_eq!(id, TransportId::Port(InitiatorPort { name, isid }));
        let mut unpadded = made(0x05, "iqn.2026-01.io.example:a");
        *unpadded.last_mut().unwrap() = 1;
        let mut unended = made(0x05, &"a".repeat(23));
        *unended.last_mut().unwrap() = b'a';
        for (bad, at) in [
            (made(0x06, "iqn.2026-01.io.example:a"), 0),
            (made(0x85, "iqn.2026-01.io.example:a"), 0),
            (made(0x45, "iqn.2026-01.io.example:a"), 4),
            (made(0x45, "iqn.2026-01.io.example:a,i,0x40000000000"), 4),
            (made(0x45, "iqn.2026-01.io.example:a,i,0x+00000000001"), 4),
            (made(0x45, ",i,0x400000000001"), 4),
            (made(0x05, "iqn.2026-01.io.example:a,i,0x400000000001"), 4),
            (made(0x05, ""), 4),
            (made(0x05, &"a".repeat(224)), 4),
            (unpadded, 4),
            (unended, 4),
        ] {
            let refused = TransportId::decode(&bad, 24);
            assert_eq!(
                refused,
                Err(Sense::invalid_parameter(24 + at)),
                "{bad:02x?}"
            );
        }
    }
}

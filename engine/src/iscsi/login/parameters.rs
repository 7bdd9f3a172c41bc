//! The operational parameters of a session and how each key is negotiated (RFC 7143 §13).

use crate::iscsi::limit;
use crate::iscsi::pdu::Digests;
use crate::iscsi::text::{boolean, parse_boolean, parse_number};
use crate::iscsi::transfer::Rules;

/// What is negotiated. Starts with the RFC's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// From full feature phase on.
    pub digests: Digests,
    /// The longest data segment that the initiator takes.
    pub send_segment_bytes: u32,
    /// The rules of data that is written. `burst_bytes` holds for data that is read, too.
    pub rules: Rules,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            send_segment_bytes: 8192,
            rules: Rules {
                initial_r2t: true,
                immediate_data: true,
                first_burst_bytes: 65_536,
                burst_bytes: 262_144,
                outstanding_r2t: 1,
            },
        }
    }
}

/// The target's reply to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This is the value.
    Value(String),
    /// A declaration: taken, and nothing is said.
    Taken,
    /// The value is inadmissible: the parameter keeps what it had.
    Reject,
    /// Not a key that this target knows.
    NotUnderstood,
}

impl Reply {
    /// What stands on the wire, if anything.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Taken => None,
            Self::Reject => Some("Reject"),
            Self::NotUnderstood => Some("NotUnderstood"),
        }
    }
}

/// A data segment may not be declared larger: the length field has 24 bits.
const SEGMENT_BYTES_MAX: u32 = (1 << 24) - 1;

impl Parameters {
    /// Settles one operational key.
    pub fn negotiate(&mut self, key: &str, value: &str) -> Reply {
        if matches!(value, "Reject" | "Irrelevant" | "NotUnderstood") {
            // An answer to something that the target declared; it changes nothing.
            return Reply::Taken;
        }
        let rules = &mut self.rules;
        match key {
            "HeaderDigest" => digest(value, &mut self.digests.header),
            "DataDigest" => digest(value, &mut self.digests.data),
            "MaxRecvDataSegmentLength" => self.declare_segment(value),
            "InitialR2T" => either(value, false, |it| rules.initial_r2t = it),
            "ImmediateData" => both(value, true, |it| rules.immediate_data = it),
            "MaxBurstLength" => {
                let range = (512, SEGMENT_BYTES_MAX);
                least(value, range, limit::BURST_BYTES, |it| {
                    rules.burst_bytes = it
                })
            }
            "FirstBurstLength" => {
                let range = (512, SEGMENT_BYTES_MAX);
                least(value, range, limit::FIRST_BURST_BYTES, |it| {
                    rules.first_burst_bytes = it
                })
            }
            "MaxOutstandingR2T" => {
                let range = (1, 65_535);
                least(value, range, limit::OUTSTANDING_R2T, |it| {
                    rules.outstanding_r2t = it
                })
            }
            "MaxConnections" => least(value, (1, 65_535), 1, |_| ()),
            "DataPDUInOrder" | "DataSequenceInOrder" => either(value, true, |_| ()),
            // Nothing is kept of a lost connection, so there is nothing to wait for, either.
            "DefaultTime2Wait" => most(value, (0, 3600), 0),
            "DefaultTime2Retain" => least(value, (0, 3600), 0, |_| ()),
            "ErrorRecoveryLevel" => least(value, (0, 2), 0, |_| ()),
            "iSCSIProtocolLevel" => least(value, (0, 31), 1, |_| ()),
            "TaskReporting" => choose(value, "RFC3720"),
            // Of RFC 3720; markers are never used.
            "IFMarker" | "OFMarker" => both(value, false, |_| ()),
            "IFMarkInt" | "OFMarkInt" => Reply::Reject,
            // Belongs to full feature phase.
            "SendTargets" => Reply::Reject,
            _ => Reply::NotUnderstood,
        }
    }

    fn declare_segment(&mut self, value: &str) -> Reply {
        match within(value, (512, SEGMENT_BYTES_MAX)) {
            Some(bytes) => {
                self.send_segment_bytes = bytes;
                Reply::Taken
            }
            None => Reply::Reject,
        }
    }
}

fn within(value: &str, (least, most): (u32, u32)) -> Option<u32> {
    parse_number(value).filter(|number| (least..=most).contains(number))
}

/// The result is the lesser of both numbers.
fn least(value: &str, range: (u32, u32), own: u32, set: impl FnOnce(u32)) -> Reply {
    let Some(offered) = within(value, range) else {
        return Reply::Reject;
    };
    let result = offered.min(own);
    set(result);
    Reply::Value(result.to_string())
}

/// The result is the greater of both numbers.
fn most(value: &str, range: (u32, u32), own: u32) -> Reply {
    match within(value, range) {
        Some(offered) => Reply::Value(offered.max(own).to_string()),
        None => Reply::Reject,
    }
}

/// The result is Yes when both say so.
fn both(value: &str, own: bool, set: impl FnOnce(bool)) -> Reply {
    match parse_boolean(value) {
        Some(offered) => {
            set(offered && own);
            Reply::Value(boolean(offered && own).to_owned())
        }
        None => Reply::Reject,
    }
}

/// The result is Yes when one says so.
fn either(value: &str, own: bool, set: impl FnOnce(bool)) -> Reply {
    match parse_boolean(value) {
        Some(offered) => {
            set(offered || own);
            Reply::Value(boolean(offered || own).to_owned())
        }
        None => Reply::Reject,
    }
}

/// The first of the initiator's list that the target has.
fn digest(value: &str, on: &mut bool) -> Reply {
    match value.split(',').find(|it| matches!(*it, "CRC32C" | "None")) {
        Some(chosen) => {
            *on = chosen == "CRC32C";
            Reply::Value(chosen.to_owned())
        }
        None => Reply::Reject,
    }
}

fn choose(value: &str, own: &str) -> Reply {
    if value.split(',').any(|it| it == own) {
        Reply::Value(own.to_owned())
    } else {
        Reply::Reject
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(key: &str, value: &str) -> Reply {
        Parameters::default().negotiate(key, value)
    }

    fn value(text: &str) -> Reply {
        Reply::Value(text.to_owned())
    }

    #[test]
    fn every_mandatory_key_is_settled_by_its_function() {
        let table = [
            ("HeaderDigest", "CRC32C,None", value("CRC32C")),
            ("HeaderDigest", "None,CRC32C", value("None")),
            ("DataDigest", "CRC32C", value("CRC32C")),
            ("DataDigest", "SHA1", Reply::Reject),
            ("MaxConnections", "8", value("1")),
            ("InitialR2T", "No", value("No")),
            ("InitialR2T", "Yes", value("Yes")),
            ("ImmediateData", "No", value("No")),
            ("ImmediateData", "Yes", value("Yes")),
            ("ImmediateData", "Maybe", Reply::Reject),
            ("MaxRecvDataSegmentLength", "262144", Reply::Taken),
            ("MaxRecvDataSegmentLength", "511", Reply::Reject),
            ("MaxRecvDataSegmentLength", "16777216", Reply::Reject),
            ("MaxBurstLength", "262144", value("262144")),
            ("MaxBurstLength", "16776192", value("1048576")),
            ("FirstBurstLength", "65536", value("65536")),
            ("FirstBurstLength", "0", Reply::Reject),
            ("DefaultTime2Wait", "2", value("2")),
            ("DefaultTime2Retain", "20", value("0")),
            ("MaxOutstandingR2T", "1", value("1")),
            ("MaxOutstandingR2T", "0", Reply::Reject),
            ("DataPDUInOrder", "No", value("Yes")),
            ("DataSequenceInOrder", "Yes", value("Yes")),
            ("ErrorRecoveryLevel", "2", value("0")),
            ("ErrorRecoveryLevel", "3", Reply::Reject),
            ("IFMarker", "Yes", value("No")),
            ("TaskReporting", "RFC3720,FastAbort", value("RFC3720")),
            ("SendTargets", "All", Reply::Reject),
            ("X-com.example.key", "1", Reply::NotUnderstood),
        ];
        for (key, offered, expected) in table {
            assert_eq!(reply(key, offered), expected, "{key}={offered}");
        }
    }

    #[test]
    fn a_rejected_value_leaves_the_default() {
        let mut parameters = Parameters::default();
        for (key, offered) in [
            ("MaxBurstLength", "1"),
            ("InitialR2T", "no"),
            ("HeaderDigest", ""),
        ] {
            assert_eq!(parameters.negotiate(key, offered), Reply::Reject);
        }
        assert_eq!(parameters, Parameters::default());
    }

    proptest! {
        #[test]
        fn a_burst_is_never_beyond_what_either_side_allows(offered in any::<u32>()) {
            let mut parameters = Parameters::default();
            match parameters.negotiate("MaxBurstLength", &offered.to_string()) {
                Reply::Value(result) => {
                    let result: u32 = result.parse().unwrap();
                    prop_assert_eq!(result, offered.min(limit::BURST_BYTES));
                    prop_assert_eq!(parameters.rules.burst_bytes, result);
                }
                other => {
                    prop_assert_eq!(other, Reply::Reject);
                    prop_assert!(!(512..1 << 24).contains(&offered));
                    prop_assert_eq!(parameters, Parameters::default());
                }
            }
        }

        #[test]
        fn no_pair_panics_and_no_result_leaves_its_bounds(key in prop::sample::select(vec![
            "HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength", "InitialR2T", "ImmediateData",
            "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "MaxConnections",
            "DefaultTime2Wait", "ErrorRecoveryLevel", "TaskReporting", "IFMarkInt",
        ]), value in "[ -~]{0,24}|[0-9]{1,12}|0x[0-9a-f]{1,9}|Yes|No|CRC32C,None") {
            let mut parameters = Parameters::default();
            let _ = parameters.negotiate(key, &value);
            prop_assert!(parameters.send_segment_bytes >= 512);
            prop_assert!((512..=limit::BURST_BYTES).contains(&parameters.rules.burst_bytes));
            prop_assert!((512..=limit::FIRST_BURST_BYTES).contains(&parameters.rules.first_burst_bytes));
            prop_assert!((1..=limit::OUTSTANDING_R2T).contains(&parameters.rules.outstanding_r2t));
        }
    }
}

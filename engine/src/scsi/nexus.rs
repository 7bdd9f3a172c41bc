//! The initiators that are logged in, and what each has yet to be told.

use super::sense::AdditionalSense;

/// One I_T nexus for as long as its session lasts. Chosen by `iscsi`, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId(pub u64);

/// The name of an initiator port (RFC 7143 3.4.2): stays the same when the session is built again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InitiatorPort {
    /// The iSCSI name, as at login. At most 223 bytes.
    pub name: String,
    /// The initiator's part of the session id.
    pub isid: [u8; 6],
}

impl InitiatorPort {
    /// The most bytes of an iSCSI name (RFC 7143 4.2.7.1).
    pub const NAME_BYTES_MAX: usize = 223;
}

/// A nexus and its unit attentions, oldest first. Each is held once, so that the list is bounded by
/// the number of kinds (INV-12).
#[derive(Debug)]
pub(super) struct Nexus {
    pub(super) port: InitiatorPort,
    attentions: Vec<AdditionalSense>,
    /// The newest that no asynchronous message has been sent about.
    unannounced: Option<AdditionalSense>,
}

impl Nexus {
    pub(super) fn new(port: InitiatorPort) -> Self {
        Self {
            port,
            attentions: Vec::new(),
            unannounced: None,
        }
    }

    /// Tells the initiator with its next command. A reset supersedes everything before it
    /// (SAM-5 5.14.3).
    pub(super) fn attend(&mut self, attention: AdditionalSense) {
        const RESET_CODE: u8 = 0x29;
        if attention.code() == RESET_CODE {
            self.attentions.clear();
        }
        if !self.attentions.contains(&attention) {
            self.attentions.push(attention);
        }
        self.unannounced = Some(attention);
    }

    /// What the initiator may be sent a message about, once.
    pub(super) fn announce(&mut self) -> Option<AdditionalSense> {
        self.unannounced.take()
    }

    pub(super) fn take_attention(&mut self) -> Option<AdditionalSense> {
        if self.attentions.is_empty() {
            return None;
        }
        let told = self.attentions.remove(0);
        self.unannounced.take_if(|waiting| *waiting == told);
        Some(told)
    }
}

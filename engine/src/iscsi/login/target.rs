//! What a target is called and whom it lets in.

use std::fmt;

use thiserror::Error;

use super::chap::Credentials;

/// An iSCSI name is at most this long (RFC 7143 §4.2.7.1).
pub const NAME_BYTES_MAX: usize = 223;

/// The name of a target or initiator: `iqn.`, `eui.` or `naa.` and what follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IscsiName(String);

/// A text that is no iSCSI name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "not an iSCSI name: it starts with iqn., eui. or naa. and has 5 to 223 letters, digits, '-', '.' and ':'"
)]
pub struct IscsiNameError;

impl IscsiName {
    /// Reads a name; letters are folded to lower case, as RFC 3722 has it.
    pub fn parse(text: &str) -> Result<Self, IscsiNameError> {
        let name = text.to_lowercase();
        let kind = ["iqn.", "eui.", "naa."]
            .iter()
            .any(|kind| name.starts_with(kind));
        // Names may hold any normalised Unicode; what may not appear are spaces and controls.
        let characters = name.chars().all(|c| {
            if c.is_ascii() {
                c.is_ascii_alphanumeric() || "-.:".contains(c)
            } else {
                !c.is_whitespace() && !c.is_control()
            }
        });
        if !kind || !characters || name.len() < 5 || name.len() > NAME_BYTES_MAX {
            return Err(IscsiNameError);
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A target: one volume behind one portal.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: IscsiName,
    /// For people: TargetAlias. Cut to what a text value holds.
    pub alias: String,
    /// Where discovery sends initiators: `host:port`, an IPv6 host in brackets.
    pub address: String,
    /// Who may log in; everyone when `None`.
    pub chap: Option<Chap>,
}

/// CHAP for normal sessions. Discovery, which tells only the name and the address, does not ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    /// What the initiator has to prove.
    pub initiator: Credentials,
    /// What the target proves when it is asked to; asking is refused when `None`.
    pub target: Option<Credentials>,
}

//! The login phase (RFC 7143 §6.3, 11.12, 11.13): who it is, whether to believe it, and what is
//! negotiated. Pure: random bytes are handed in.
//!
//! ```text
//!            ┌──────────┐ CHAP proven,      ┌─────────────┐          ┌─────────────┐
//! first PDU ─┤ Security ├─ or not asked ───▶│ Operational ├─────────▶│ FullFeature │
//!            └────┬─────┘                   └─────────────┘          └─────────────┘
//!                 └────────────────────────────────────────────────────────▲
//! ```
//! Any [`Refusal`] ends the connection. The target's side answers only: it never offers a key
//! besides declaring its own segment length, group and alias.

mod chap;
mod parameters;
mod security;
mod target;

use std::collections::BTreeSet;
use std::rc::Rc;

pub use chap::{Algorithm, CHALLENGE_BYTES, Challenge, ChapError, Credentials, Secret};
pub use parameters::{Parameters, Reply};
pub use target::{Chap, IscsiName, IscsiNameError, NAME_BYTES_MAX, Target};
use thiserror::Error;

use super::limit;
use super::pdu::{InitiatorSessionId, LoginRequest, LoginResponse, Stage, Tag};
use super::sequence::Serial;
use super::text::{self, Answer, Pair};
use security::Security;

/// The one portal group of a target.
pub const PORTAL_GROUP: &str = "1";

/// Why a login is refused (RFC 7143 §11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u16)]
pub enum Refusal {
    /// A request that breaks the protocol.
    #[error("the login request breaks the protocol")]
    InitiatorError = 0x0200,
    /// It is not who it says, or does not say.
    #[error("authentication failed")]
    Authentication = 0x0201,
    /// No such target here.
    #[error("there is no target of this name here")]
    NotFound = 0x0203,
    /// A newer version than 0 is demanded.
    #[error("the initiator demands an unsupported version")]
    Version = 0x0205,
    /// A second connection of a session.
    #[error("a session has one connection")]
    TooManyConnections = 0x0206,
    /// A key that must be there is not.
    #[error("the initiator or target name is missing")]
    MissingParameter = 0x0207,
    /// Neither normal nor discovery.
    #[error("an unsupported session type")]
    SessionType = 0x0209,
    /// A connection for a session that is gone.
    #[error("the session does not exist")]
    NoSession = 0x020a,
    /// Something else than a login request.
    #[error("not a login request")]
    NotLogin = 0x020b,
    /// Try again: the session that is replaced has not ended yet, or the target is stopping.
    #[error("temporarily unavailable")]
    Unavailable = 0x0301,
    /// As many sessions as the target holds.
    #[error("too many sessions")]
    NoResources = 0x0302,
}

/// Fresh random bytes, handed in by the caller: unpredictable, used for one login.
#[derive(Debug, Clone, Copy)]
pub struct Entropy {
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C.
    pub challenge: [u8; CHALLENGE_BYTES],
}

/// What is being logged in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Asks for targets only.
    Discovery,
    /// Sends SCSI commands.
    Normal,
}

/// A login that has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// Who.
    pub initiator: IscsiName,
    /// Its part of the session's name.
    pub isid: InitiatorSessionId,
    /// Not 0: it wants to join a session.
    pub tsih: u16,
    /// The connection's number in the session.
    pub connection: u16,
    /// For what.
    pub kind: SessionKind,
    /// What was negotiated.
    pub parameters: Parameters,
    /// The session's first command number.
    pub command: Serial,
}

/// The answer to a login request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To be sent; of the last one, once the session is admitted and has its handle.
    pub response: LoginResponse,
    /// With the last one.
    pub established: Option<Established>,
}

/// A login in progress.
#[derive(Debug)]
pub struct Login {
    target: Rc<Target>,
    opening: Option<Opening>,
    who: Option<Who>,
    stage: Stage,
    /// The text of a request that goes on in the next.
    text: Vec<u8>,
    answer: Answer,
    /// Each key comes once in a login.
    seen: BTreeSet<String>,
    security: Security,
    parameters: Parameters,
    declared: bool,
    requests: u32,
}

/// What all requests of a login have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opening {
    tag: Tag,
    isid: InitiatorSessionId,
    tsih: u16,
    connection: u16,
    command: Serial,
}

/// What the first request says.
#[derive(Debug, Clone)]
struct Who {
    initiator: IscsiName,
    kind: SessionKind,
}

impl Login {
    /// Before the first request.
    pub fn new(target: Rc<Target>, entropy: Entropy) -> Self {
        Self {
            target,
            opening: None,
            who: None,
            stage: Stage::Security,
            text: Vec::new(),
            answer: Answer::new(),
            seen: BTreeSet::new(),
            security: Security::new(entropy),
            parameters: Parameters::default(),
            declared: false,
            requests: 0,
        }
    }

    /// Deals with one request.
    pub fn step(&mut self, request: &LoginRequest) -> Result<Step, Refusal> {
        self.check_order(request)?;
        if self.text.len() + request.text.len() > limit::TEXT_BYTES {
            return Err(Refusal::InitiatorError);
        }
        self.text.extend_from_slice(&request.text);
        if request.continues {
            return Ok(self.respond(request, None));
        }
        let pairs =
            text::parse(&std::mem::take(&mut self.text)).map_err(|_| Refusal::InitiatorError)?;
        if !self.answer.is_empty() {
            // The rest of a long answer is being fetched, with an empty request.
            return if pairs.is_empty() {
                Ok(self.respond(request, request.transit))
            } else {
                Err(Refusal::InitiatorError)
            };
        }
        self.note_keys(&pairs)?;
        if self.who.is_none() {
            self.introduce(request, &pairs)?;
        }
        match self.stage {
            Stage::Security => self.security(&pairs)?,
            _ => self.operational(&pairs),
        }
        Ok(self.respond(request, request.transit))
    }

    /// A response that refuses.
    pub fn refuse(request: &LoginRequest, refusal: Refusal) -> LoginResponse {
        LoginResponse {
            tag: request.tag,
            transit: None,
            continues: false,
            stage: request.stage,
            isid: request.isid,
            tsih: request.tsih,
            status: refusal as u16,
            text: Vec::new(),
        }
    }

    fn check_order(&mut self, request: &LoginRequest) -> Result<(), Refusal> {
        let opening = Opening {
            tag: request.tag,
            isid: request.isid,
            tsih: request.tsih,
            connection: request.connection,
            command: request.command,
        };
        if request.version_min > 0 {
            return Err(Refusal::Version);
        }
        self.requests += 1;
        if self.opening.is_none() {
            self.opening = Some(opening);
            self.stage = request.stage;
        }
        let same = self.opening == Some(opening) && self.stage == request.stage;
        if !same || self.requests > limit::LOGIN_REQUESTS {
            return Err(Refusal::InitiatorError);
        }
        Ok(())
    }

    fn note_keys(&mut self, pairs: &[Pair]) -> Result<(), Refusal> {
        let fresh = pairs.iter().all(|pair| self.seen.insert(pair.key.clone()));
        if !fresh || self.seen.len() > text::PAIRS_MAX {
            return Err(Refusal::InitiatorError);
        }
        Ok(())
    }

    /// The first request names the initiator and, for a normal session, the target.
    fn introduce(&mut self, request: &LoginRequest, pairs: &[Pair]) -> Result<(), Refusal> {
        let value = |key: &str| {
            pairs
                .iter()
                .find(|pair| pair.key == key)
                .map(|pair| &pair.value)
        };
        let initiator = value("InitiatorName").ok_or(Refusal::MissingParameter)?;
        let initiator = IscsiName::parse(initiator).map_err(|_| Refusal::InitiatorError)?;
        let kind = match value("SessionType").map(String::as_str) {
            None | Some("Normal") => SessionKind::Normal,
            Some("Discovery") => SessionKind::Discovery,
            Some(_) => return Err(Refusal::SessionType),
        };
        let wanted = value("TargetName");
        match (kind, wanted) {
            (SessionKind::Normal, None) => return Err(Refusal::MissingParameter),
            (_, Some(name)) if IscsiName::parse(name).as_ref() != Ok(&self.target.name) => {
                return Err(Refusal::NotFound);
            }
            _ => {}
        }
        self.security
            .demand(self.target.chap.is_some() && kind == SessionKind::Normal);
        if request.stage != Stage::Security && self.security.is_open() {
            return Err(Refusal::Authentication);
        }
        if kind == SessionKind::Normal {
            self.answer.push("TargetPortalGroupTag", PORTAL_GROUP);
            self.push_alias();
        }
        self.who = Some(Who { initiator, kind });
        Ok(())
    }

    fn push_alias(&mut self) {
        let alias = &self.target.alias;
        let end = alias.floor_char_boundary(text::VALUE_BYTES_MAX);
        let alias = alias.get(..end).unwrap_or_default();
        if !alias.is_empty() && !alias.contains('\0') {
            self.answer.push("TargetAlias", alias);
        }
    }

    fn security(&mut self, pairs: &[Pair]) -> Result<(), Refusal> {
        let others = self
            .security
            .settle(self.target.chap.as_ref(), pairs, &mut self.answer)?;
        for pair in others {
            // Operational keys have no place in this stage; they keep their defaults.
            let reply = match self.parameters.clone().negotiate(&pair.key, &pair.value) {
                Reply::NotUnderstood => Reply::NotUnderstood,
                _ => Reply::Reject,
            };
            self.answer
                .push(&pair.key, reply.text().unwrap_or_default());
        }
        Ok(())
    }

    fn operational(&mut self, pairs: &[Pair]) {
        for pair in pairs.iter().filter(|pair| !is_introduction(&pair.key)) {
            let reply = self.parameters.negotiate(&pair.key, &pair.value);
            if let Some(value) = reply.text() {
                self.answer.push(&pair.key, value);
            }
        }
        if !self.declared {
            self.declared = true;
            let own = limit::RECEIVE_SEGMENT_BYTES.to_string();
            self.answer.push("MaxRecvDataSegmentLength", &own);
        }
    }

    fn respond(&mut self, request: &LoginRequest, transit: Option<Stage>) -> Step {
        let text = self.answer.take(limit::LOGIN_SEGMENT_BYTES as usize);
        let continues = !self.answer.is_empty();
        let transit = transit.filter(|_| !continues && !self.security.is_open());
        if let Some(next) = transit {
            self.stage = next;
        }
        let established = match (transit, &self.who) {
            (Some(Stage::FullFeature), Some(who)) => Some(Established {
                initiator: who.initiator.clone(),
                isid: request.isid,
                tsih: request.tsih,
                connection: request.connection,
                kind: who.kind,
                parameters: self.parameters,
                command: request.command,
            }),
            _ => None,
        };
        Step {
            response: LoginResponse {
                tag: request.tag,
                transit,
                continues,
                stage: request.stage,
                isid: request.isid,
                tsih: request.tsih,
                status: 0,
                text,
            },
            established,
        }
    }
}

/// Keys that [`Login::introduce`] reads, or that are for people only.
fn is_introduction(key: &str) -> bool {
    matches!(
        key,
        "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType"
    )
}

#[cfg(test)]
mod tests;

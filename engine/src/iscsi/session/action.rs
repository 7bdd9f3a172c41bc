//! What a session wants done, and why one ends.

use super::task::TaskId;
use crate::iscsi::login::{Established, Refusal};
use crate::iscsi::pdu::{FrameError, Tag};
use crate::scsi::{Request, Reset};

/// Names a wait for commands of several sessions to end. Chosen by the session's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainId(pub u64);

/// What a session wants done.
#[derive(Debug)]
pub enum Action {
    /// The login is over: end the session that this one replaces, if any, then call
    /// [`super::Session::admit`] or [`super::Session::refuse`].
    Admit(Established),
    /// Execute a command; [`super::Session::finish`] or, when it is not wanted any more,
    /// [`super::Session::drop_task`] ends it.
    Execute {
        /// Its name.
        task: TaskId,
        /// The command.
        request: Request,
    },
    /// Reset the device and abort the commands of all sessions, this one's with
    /// [`super::Session::abort`]; when all have ended call [`super::Session::purged`].
    Purge {
        /// Names the request that is to be answered.
        request: PurgeRequest,
        /// What is reset.
        reset: Reset,
    },
    /// All commands that [`super::Session::abort`] named this for have ended.
    Drained(DrainId),
    /// Send what is left, then close the connection.
    Close(Ending),
}

/// A task management request that waits for all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeRequest {
    pub(super) tag: Tag,
    pub(super) immediate: bool,
    pub(super) closes: bool,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The initiator logged out.
    #[error("logged out")]
    LoggedOut,
    /// The login was refused.
    #[error("login refused: {0}")]
    Refused(Refusal),
    /// The login took too long.
    #[error("the login took too long")]
    LoginTimeout,
    /// The initiator is silent, and does not answer a ping.
    #[error("the initiator does not answer")]
    Dead,
    /// The stream cannot be read on.
    #[error("malformed: {0}")]
    Malformed(FrameError),
    /// A data segment does not match its digest.
    #[error("a data segment does not match its digest")]
    DataDigest,
    /// The same initiator port logged in anew.
    #[error("replaced by a new login of the same initiator port")]
    Reinstated,
    /// Who may log in has changed since it began.
    #[error("the secrets of the target were changed during the login")]
    SecretsChanged,
    /// Room is made for newer logins.
    #[error("too many logins at a time")]
    Crowded,
    /// The initiator closed the connection, or the network did.
    #[error("the connection is gone")]
    Disconnected,
    /// The target stops.
    #[error("the target stops")]
    Stopped,
    /// A cold reset ends all sessions.
    #[error("the target was reset")]
    Reset,
}

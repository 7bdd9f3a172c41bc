//! The bounds of what a peer can make the target hold (INV-12), each with its reason.

use std::time::Duration;

/// The largest data segment accepted, declared as MaxRecvDataSegmentLength. Large enough that a
/// 256 KiB write needs one PDU.
pub const RECEIVE_SEGMENT_BYTES: u32 = 256 << 10;
/// Before full feature phase no data segment is longer (RFC 7143 §13.12: the default).
pub const LOGIN_SEGMENT_BYTES: u32 = 8192;
/// The additional header segments of one PDU: the length field's maximum.
pub const ADDITIONAL_HEADER_BYTES: u32 = 255 * 4;
/// All text of one negotiation request, over however many PDUs.
pub const TEXT_BYTES: usize = 64 << 10;
/// What is accepted as MaxBurstLength: the data of one R2T.
pub const BURST_BYTES: u32 = 1 << 20;
/// What is accepted as FirstBurstLength. Unsolicited data arrives before the target can say no:
/// this times [`COMMAND_WINDOW`] is held at worst.
pub const FIRST_BURST_BYTES: u32 = 256 << 10;
/// What is accepted as MaxOutstandingR2T: enough to keep a link busy.
pub const OUTSTANDING_R2T: u32 = 8;
/// Commands that an initiator may have in flight: a Linux initiator's default depth.
pub const COMMAND_WINDOW: u32 = 128;
/// Immediate commands in flight beside the window; more are rejected.
pub const IMMEDIATE_COMMANDS: usize = 32;
/// Data that one session's admitted commands and unsent responses hold. One command is always
/// admitted, whatever its size.
pub const SESSION_BYTES: u64 = 64 << 20;
/// The most data that one command moves; a SCSI command that wants more is refused by `scsi`.
pub const TRANSFER_BYTES: u32 = 32 << 20;
/// Received bytes of one connection that are not yet processed: one PDU of the largest size and
/// some of the next.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// Unsent bytes beyond which no more is read from a connection.
pub const UNSENT_BYTES: u64 = 16 << 20;

/// Connections whose login is not complete. One more closes the oldest, so that a flood cannot
/// keep a real initiator out for long.
pub const LOGIN_CONNECTIONS: usize = 128;
/// Sessions in full feature phase, of all initiators.
pub const SESSIONS: usize = 64;
/// A login that takes longer is closed.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// Login requests of one login: more than any negotiation needs.
pub const LOGIN_REQUESTS: u32 = 64;
/// A silent initiator is asked for a sign of life after this long.
pub const PING_AFTER: Duration = Duration::from_secs(20);
/// And closed when nothing has come this long after the question. Together more than a minute: there
/// are initiators in user space that look at their socket no more often while they are idle.
pub const PING_DEADLINE: Duration = Duration::from_secs(45);
/// Unsent bytes of which none leave for this long mean a dead peer.
pub const SEND_DEADLINE: Duration = Duration::from_secs(60);
/// How often a session looks at the time.
pub const TICK: Duration = Duration::from_secs(1);
/// A login that replaces a session waits this long for the old one's commands to end; then it is
/// refused as temporarily unavailable and the initiator tries again.
pub const REINSTATEMENT_WAIT: Duration = Duration::from_secs(10);
/// A closing connection has this long to take what is left to send.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);

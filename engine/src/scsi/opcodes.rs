//! REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), read off the table of commands.

use bytes::{BufMut, BytesMut};

use super::command::{self, Command, TABLE};
use super::handle::{Handled, Task};
use super::primary::{SANITIZE, cut};
use super::sense::Sense;
use super::unit::LogicalUnit;

/// How long an initiator should wait before it takes a command for lost, in seconds: longer than
/// I/O is held while no replica can be reached.
const RECOMMENDED_TIMEOUT_S: u32 = 120;
/// None is told of a command that takes as long as the volume is large.
const NO_TIMEOUT_S: u32 = 0;

const TIMEOUTS_BYTES: u16 = 12;
const RCTD_BIT: u8 = 7;

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn report(_: &mut LogicalUnit, task: &Task) -> Handled {
    let timeouts = task.cdb.bit(2, RCTD_BIT);
    let opcode = task.cdb.u8(3);
    let action = task.cdb.u16(4);
    let commands = command::with_opcode(opcode);
    let has_actions = commands.iter().any(|command| command.action.is_some());
    let with_action = || {
        commands
            .iter()
            .find(|command| command.action.map(u16::from) == Some(action))
    };
    let data = match task.cdb.u8(2) & 7 {
        0 => all(timeouts),
        // The operation code alone: refused when it has service actions.
        1 if has_actions => return Err(Sense::invalid_cdb_bit(2, 2).into()),
        1 => one(commands.first(), timeouts),
        // With service action: refused when the operation code is there and has none.
        2 if !has_actions && !commands.is_empty() => {
            return Err(Sense::invalid_cdb_bit(2, 2).into());
        }
        2 => one(with_action(), timeouts),
        // Either, whichever it has.
        3 if has_actions => one(with_action(), timeouts),
        3 => one(commands.first().filter(|_| action == 0), timeouts),
        _ => return Err(Sense::invalid_cdb_bit(2, 2).into()),
    };
    cut(data, task.cdb.u32(6) as usize)
}

fn put_timeouts(out: &mut BytesMut, opcode: u8) {
    out.put_u16(TIMEOUTS_BYTES - 2);
    out.put_slice(&[0, 0]);
    out.put_u32(0);
    out.put_u32(match opcode {
        SANITIZE => NO_TIMEOUT_S,
        _ => RECOMMENDED_TIMEOUT_S,
    });
}

/// ```text
/// 0  u32  length     4  n × { opcode, 0, u16 service action, 0, CTDP | SERVACTV, u16 CDB bytes,
///                             timeouts when asked for }
/// ```
fn all(timeouts: bool) -> BytesMut {
    const SERVICE_ACTION_VALID: u8 = 0x01;
    const TIMEOUTS_PRESENT: u8 = 0x02;
    const DESCRIPTOR_BYTES: usize = 8;
    let each = DESCRIPTOR_BYTES
        + if timeouts {
            usize::from(TIMEOUTS_BYTES)
        } else {
            0
        };
    let length = TABLE.len() * each;
    let mut out = BytesMut::with_capacity(4 + length);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for command in &TABLE {
        let mut flags = if timeouts { TIMEOUTS_PRESENT } else { 0 };
        if command.action.is_some() {
            flags |= SERVICE_ACTION_VALID;
        }
        out.put_slice(&[command.opcode(), 0]);
        out.put_u16(u16::from(command.action.unwrap_or(0)));
        out.put_slice(&[0, flags]);
        out.put_u16(u16::from(command.length()));
        if timeouts {
            put_timeouts(&mut out, command.opcode());
        }
    }
    out
}

/// ```text
/// 0  0    1  CTDP | SUPPORT    2  u16 CDB bytes    4  usage data, then timeouts when asked for
/// ```
fn one(command: Option<&Command>, timeouts: bool) -> BytesMut {
    const NOT_SUPPORTED: u8 = 1;
    const SUPPORTED: u8 = 3;
    const TIMEOUTS_PRESENT: u8 = 0x80;
    let mut out = BytesMut::with_capacity(4 + 16 + usize::from(TIMEOUTS_BYTES));
    let Some(command) = command else {
        out.put_slice(&[0, NOT_SUPPORTED, 0, 0]);
        return out;
    };
    let flags = if timeouts { TIMEOUTS_PRESENT } else { 0 };
    out.put_slice(&[0, SUPPORTED | flags]);
    out.put_u16(u16::from(command.length()));
    out.put_slice(&usage_data(command));
    if timeouts {
        put_timeouts(&mut out, command.opcode());
    }
    out
}

/// The usage map as it is told: the operation code and the service action stand for themselves.
fn usage_data(command: &Command) -> Vec<u8> {
    let mut usage = command.usage[..usize::from(command.length())].to_vec();
    if let Some(action) = command.action {
        usage[1] = (usage[1] & !0x1f) | action;
    }
    usage
}

//! The one table of commands: what REPORT SUPPORTED OPERATION CODES tells is what [`find`] finds and
//! what the usage maps let through.

mod data;
mod table;

use super::cdb::Cdb;
use super::handle::{Handled, Task};
use super::primary;
use super::sense::{AdditionalSense, Sense};
use super::unit::LogicalUnit;
pub(super) use table::TABLE;

/// What a command does to the medium: decides who may send it under another's reservation (SPC-4
/// table 66, SBC-3 table 13) and while the unit is write protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, always.
    Always,
    /// Reads: refused under another's exclusive access.
    Reading,
    /// Changes something other than the medium: refused under another's reservation of any type.
    Changing,
    /// Changes the medium: like `Changing`, and refused while write protected.
    Writing,
    /// Deals with reservations and decides by itself.
    Reserving,
}

/// A command that the device has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    /// Bits that may be set; the operation code in byte 0. The bits of a service action are set.
    pub(super) usage: [u8; 16],
    pub(super) action: Option<u8>,
    pub(super) access: Access,
    takes: fn(&Cdb) -> u64,
    pub(super) handler: fn(&mut LogicalUnit, &Task) -> Handled,
}

impl Command {
    const fn new<const N: usize>(
        usage: [u8; N],
        access: Access,
        takes: fn(&Cdb) -> u64,
        handler: fn(&mut LogicalUnit, &Task) -> Handled,
    ) -> Self {
        assert!(
            N == Cdb::length(usage[0]) as usize,
            "the map is as long as the CDB"
        );
        let mut padded = [0; 16];
        let mut at = 0;
        while at < N {
            padded[at] = usage[at];
            at += 1;
        }
        Self {
            usage: padded,
            action: None,
            access,
            takes,
            handler,
        }
    }

    const fn action(mut self, action: u8) -> Self {
        self.usage[1] |= 0x1f;
        self.action = Some(action);
        self
    }

    pub(super) const fn opcode(&self) -> u8 {
        self.usage[0]
    }

    pub(super) const fn length(&self) -> u8 {
        Cdb::length(self.usage[0])
    }

    /// Refuses bits that the usage map does not allow.
    pub(super) fn check_usage(&self, cdb: &Cdb) -> Result<(), Sense> {
        let length = usize::from(self.length());
        for (at, (byte, allowed)) in cdb.bytes().iter().zip(&self.usage).enumerate() {
            let wrong = byte & !allowed;
            if at > 0 && at < length && wrong != 0 {
                let bit = u8::try_from(wrong.ilog2()).unwrap_or(7);
                let at = u16::try_from(at).unwrap_or(u16::MAX);
                return Err(Sense::invalid_cdb_bit(at, bit));
            }
        }
        Ok(())
    }
}

/// The place in the table of the first command with each operation code, [`NONE`] where there is
/// none.
const FIRST: [u8; 256] = {
    assert!(TABLE.len() < NONE as usize);
    let mut first = [NONE; 256];
    let mut at = TABLE.len();
    while at > 0 {
        at -= 1;
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        let place = at as u8;
        first[TABLE[at].usage[0] as usize] = place;
    }
    first
};

const NONE: u8 = 0xff;

/// The commands of an operation code: none, one, or one per service action.
pub(super) fn with_opcode(opcode: u8) -> &'static [Command] {
    let first = FIRST[usize::from(opcode)];
    if first == NONE {
        return &[];
    }
    let commands = TABLE.get(usize::from(first)..).unwrap_or(&[]);
    let count = commands
        .iter()
        .take_while(|command| command.opcode() == opcode)
        .count();
    commands.get(..count).unwrap_or(&[])
}

/// The command that the CDB names.
pub(super) fn find(cdb: &Cdb) -> Result<&'static Command, Sense> {
    let commands = with_opcode(cdb.opcode());
    match commands {
        [] => Err(Sense::illegal(AdditionalSense::INVALID_OPERATION_CODE)),
        [command] if command.action.is_none() => Ok(command),
        _ => commands
            .iter()
            .find(|command| command.action == Some(cdb.service_action()))
            .ok_or(Sense::invalid_cdb_bit(1, 4)),
    }
}

/// How many bytes of data-out the command takes. 0 of commands that take none, and of those that
/// will be refused because they name more than [`super::TRANSFER_BYTES_MAX`] or do not exist: their
/// data need not be asked for.
pub fn data_out_bytes(cdb: &[u8; 16]) -> u32 {
    let cdb = Cdb::new(*cdb);
    let Ok(command) = find(&cdb) else { return 0 };
    match u32::try_from((command.takes)(&cdb)) {
        Ok(bytes) if bytes <= super::TRANSFER_BYTES_MAX => bytes,
        _ => 0,
    }
}

/// Whether the command goes before others and holds none up, whatever its task attribute: those that
/// tell of the unit (SAM-5 8.6.1 lets them), and SANITIZE (SBC-4 5.36), which others do not wait for but
/// are refused by.
pub fn goes_first(cdb: &[u8; 16]) -> bool {
    let cdb = Cdb::new(*cdb);
    primary::is_exempt_from_attention(&cdb) || cdb.opcode() == primary::SANITIZE
}

//! Sense data: why a command ended with CHECK CONDITION (SPC-4 4.5).

use bytes::{BufMut, Bytes, BytesMut};

use crate::volume::Failure;

/// The kind of an exception (SPC-4 4.5.6, table "sense key descriptions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// Not accessible now; a retry may succeed.
    NotReady = 0x2,
    /// The data cannot be read.
    MediumError = 0x3,
    /// The command or its parameters are wrong.
    IllegalRequest = 0x5,
    /// Something changed that the initiator should know before it goes on.
    UnitAttention = 0x6,
    /// A write to something protected, or for which there is no space.
    DataProtect = 0x7,
    /// The copy stopped.
    CopyAborted = 0xa,
    /// The target gave the command up; a retry may succeed.
    AbortedCommand = 0xb,
    /// The data compared is different.
    Miscompare = 0xe,
}

/// Additional sense code and qualifier (SPC-4 annex F).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdditionalSense(u16);

impl AdditionalSense {
    /// 00/00 NO ADDITIONAL SENSE INFORMATION.
    pub const NONE: Self = Self(0x0000);
    /// 04/02 LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED.
    pub const INITIALIZING_COMMAND_REQUIRED: Self = Self(0x0402);
    /// 04/0A LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION: initiators retry it.
    pub const NOT_ACCESSIBLE_TRANSITION: Self = Self(0x040a);
    /// 04/1B LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
    pub const SANITIZE_IN_PROGRESS: Self = Self(0x041b);
    /// 0D/02 COPY TARGET DEVICE NOT REACHABLE.
    pub const COPY_TARGET_NOT_REACHABLE: Self = Self(0x0d02);
    /// 0E/03 INVALID FIELD IN COMMAND INFORMATION UNIT: the transport brought too much or too little
    /// data.
    pub const INVALID_FIELD_IN_INFORMATION_UNIT: Self = Self(0x0e03);
    /// WRITE ERROR: acknowledged data did not reach the medium.
    pub const WRITE_ERROR: Self = Self(0x0c00);
    /// 11/00 UNRECOVERED READ ERROR.
    pub const UNRECOVERED_READ_ERROR: Self = Self(0x1100);
    /// 1A/00 PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LIST_LENGTH_ERROR: Self = Self(0x1a00);
    /// 1D/00 MISCOMPARE DURING VERIFY OPERATION.
    pub const MISCOMPARE_DURING_VERIFY: Self = Self(0x1d00);
    /// 20/00 INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPERATION_CODE: Self = Self(0x2000);
    /// 21/00 LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Self = Self(0x2100);
    /// 24/00 INVALID FIELD IN CDB.
    pub const INVALID_FIELD_IN_CDB: Self = Self(0x2400);
    /// 25/00 LOGICAL UNIT NOT SUPPORTED.
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Self = Self(0x2500);
    /// 26/00 INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Self = Self(0x2600);
    /// 26/04 INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const INVALID_RELEASE: Self = Self(0x2604);
    /// 26/06 TOO MANY TARGET DESCRIPTORS.
    pub const TOO_MANY_TARGET_DESCRIPTORS: Self = Self(0x2606);
    /// 26/07 UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    pub const UNSUPPORTED_TARGET_DESCRIPTOR: Self = Self(0x2607);
    /// 26/08 TOO MANY SEGMENT DESCRIPTORS.
    pub const TOO_MANY_SEGMENT_DESCRIPTORS: Self = Self(0x2608);
    /// 26/09 UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    pub const UNSUPPORTED_SEGMENT_DESCRIPTOR: Self = Self(0x2609);
    /// 27/00 WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self(0x2700);
    /// 27/02 LOGICAL UNIT SOFTWARE WRITE PROTECTED.
    pub const SOFTWARE_WRITE_PROTECTED: Self = Self(0x2702);
    /// 27/07 SPACE ALLOCATION FAILED WRITE PROTECT.
    pub const SPACE_ALLOCATION_FAILED: Self = Self(0x2707);
    /// 29/00 POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    pub const POWER_ON_OR_RESET: Self = Self(0x2900);
    /// 29/02 SCSI BUS RESET OCCURRED: of a target reset.
    pub const TARGET_RESET: Self = Self(0x2902);
    /// 29/03 BUS DEVICE RESET FUNCTION OCCURRED: of a logical unit reset.
    pub const UNIT_RESET: Self = Self(0x2903);
    /// 29/07 I_T NEXUS LOSS OCCURRED.
    pub const NEXUS_LOSS: Self = Self(0x2907);
    /// 2A/01 MODE PARAMETERS CHANGED.
    pub const MODE_PARAMETERS_CHANGED: Self = Self(0x2a01);
    /// 2A/03 RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: Self = Self(0x2a03);
    /// 2A/04 RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: Self = Self(0x2a04);
    /// 2A/05 REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: Self = Self(0x2a05);
    /// 2A/09 CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self(0x2a09);
    /// 2C/00 COMMAND SEQUENCE ERROR.
    pub const COMMAND_SEQUENCE_ERROR: Self = Self(0x2c00);
    /// 2F/00 COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: Self = Self(0x2f00);
    /// 31/03 SANITIZE COMMAND FAILED.
    pub const SANITIZE_FAILED: Self = Self(0x3103);
    /// 39/00 SAVING PARAMETERS NOT SUPPORTED.
    pub const SAVING_NOT_SUPPORTED: Self = Self(0x3900);
    /// 44/00 INTERNAL TARGET FAILURE.
    pub const INTERNAL_TARGET_FAILURE: Self = Self(0x4400);
    /// 49/00 INVALID MESSAGE ERROR: of a task attribute that cannot be.
    pub const INVALID_MESSAGE: Self = Self(0x4900);
    /// 53/02 MEDIUM REMOVAL PREVENTED.
    pub const MEDIUM_REMOVAL_PREVENTED: Self = Self(0x5302);
    /// 55/04 INSUFFICIENT REGISTRATION RESOURCES.
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: Self = Self(0x5504);

    /// The additional sense code.
    pub const fn code(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Its qualifier.
    pub const fn qualifier(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

/// The field that is wrong (SPC-4 4.5.2.4.2): in the CDB or in the parameter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FieldPointer {
    in_cdb: bool,
    byte: u16,
    bit: Option<u8>,
}

impl FieldPointer {
    fn encode(self) -> [u8; 3] {
        let mut flags = 0x80 | (u8::from(self.in_cdb) << 6);
        if let Some(bit) = self.bit {
            flags |= 0x08 | (bit & 7);
        }
        let [high, low] = self.byte.to_be_bytes();
        [flags, high, low]
    }
}

/// The three bytes of the SENSE KEY SPECIFIC field (SPC-4 4.5.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Specific {
    /// Of ILLEGAL REQUEST.
    Field(FieldPointer),
    /// Of NOT READY: how much is done, in 65536ths.
    Progress(u16),
}

impl Specific {
    fn encode(self) -> [u8; 3] {
        const VALID: u8 = 0x80;
        match self {
            Self::Field(field) => field.encode(),
            Self::Progress(done) => {
                let [high, low] = done.to_be_bytes();
                [VALID, high, low]
            }
        }
    }
}

/// How sense data is laid out: what D_SENSE of the control mode page chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenseFormat {
    /// Response code 70h.
    Fixed,
    /// Response code 72h.
    Descriptor,
}

/// Why a command ended with CHECK CONDITION.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    key: SenseKey,
    additional: AdditionalSense,
    information: Option<u64>,
    specific: Option<Specific>,
}

impl Sense {
    /// With neither information nor field pointer.
    pub const fn new(key: SenseKey, additional: AdditionalSense) -> Self {
        Self {
            key,
            additional,
            information: None,
            specific: None,
        }
    }

    /// Of a wrong command.
    pub const fn illegal(additional: AdditionalSense) -> Self {
        Self::new(SenseKey::IllegalRequest, additional)
    }

    /// INVALID FIELD IN CDB, pointing at the byte.
    pub const fn invalid_cdb(byte: u16) -> Self {
        let mut sense = Self::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
        sense.specific = Some(Specific::Field(FieldPointer {
            in_cdb: true,
            byte,
            bit: None,
        }));
        sense
    }

    /// INVALID FIELD IN CDB, pointing at the bit of the byte.
    pub const fn invalid_cdb_bit(byte: u16, bit: u8) -> Self {
        let mut sense = Self::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
        sense.specific = Some(Specific::Field(FieldPointer {
            in_cdb: true,
            byte,
            bit: Some(bit),
        }));
        sense
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at the byte.
    pub fn invalid_parameter(byte: usize) -> Self {
        Self::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST).at_parameter(byte)
    }

    /// The same, pointing at this byte of the parameter list.
    pub fn at_parameter(mut self, byte: usize) -> Self {
        self.specific = Some(Specific::Field(FieldPointer {
            in_cdb: false,
            byte: u16::try_from(byte).unwrap_or(u16::MAX),
            bit: None,
        }));
        self
    }

    /// LOGICAL BLOCK ADDRESS OUT OF RANGE, naming the first address that is.
    pub const fn lba_out_of_range(lba: u64) -> Self {
        Self::illegal(AdditionalSense::LBA_OUT_OF_RANGE).with_information(lba)
    }

    /// Something changed.
    pub const fn unit_attention(additional: AdditionalSense) -> Self {
        Self::new(SenseKey::UnitAttention, additional)
    }

    /// The same with the INFORMATION field.
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// The same with the PROGRESS INDICATION, in 65536ths.
    pub const fn with_progress(mut self, done: u16) -> Self {
        self.specific = Some(Specific::Progress(done));
        self
    }

    /// Its key.
    pub const fn key(&self) -> SenseKey {
        self.key
    }

    /// Its additional sense code and qualifier.
    pub const fn additional(&self) -> AdditionalSense {
        self.additional
    }

    /// The bytes, without iSCSI's length in front.
    ///
    /// ```text
    /// fixed                                  descriptor
    ///  0  70h, VALID in bit 7                 0  72h          4  3 zero bytes
    ///  2  sense key                           1  sense key    7  length that follows
    ///  3  INFORMATION, 4 bytes                2  ASC          8  descriptors: 00h information,
    ///  7  0Ah: length that follows            3  ASCQ            02h sense key specific
    /// 12  ASC, ASCQ
    /// 15  sense key specific, 3 bytes
    /// ```
    pub fn encode(&self, format: SenseFormat) -> Bytes {
        match format {
            SenseFormat::Fixed => self.encode_fixed(),
            SenseFormat::Descriptor => self.encode_descriptor(),
        }
    }

    fn encode_fixed(&self) -> Bytes {
        const ADDITIONAL_BYTES: u8 = 10;
        let mut out = [0_u8; 8 + ADDITIONAL_BYTES as usize];
        out[0] = 0x70;
        out[2] = self.key as u8;
        // An INFORMATION that needs more than four bytes cannot be told in this format.
        if let Some(information) = self.information.and_then(|i| u32::try_from(i).ok()) {
            out[0] |= 0x80;
            out[3..7].copy_from_slice(&information.to_be_bytes());
        }
        out[7] = ADDITIONAL_BYTES;
        out[12] = self.additional.code();
        out[13] = self.additional.qualifier();
        if let Some(specific) = self.specific {
            out[15..18].copy_from_slice(&specific.encode());
        }
        Bytes::copy_from_slice(&out)
    }

    fn encode_descriptor(&self) -> Bytes {
        const INFORMATION_BYTES: u8 = 12;
        const SPECIFIC_BYTES: u8 = 8;
        let mut length = 0;
        if self.information.is_some() {
            length += INFORMATION_BYTES;
        }
        if self.specific.is_some() {
            length += SPECIFIC_BYTES;
        }
        let mut out = BytesMut::with_capacity(8 + usize::from(length));
        out.put_slice(&[0x72, self.key as u8]);
        out.put_slice(&[self.additional.code(), self.additional.qualifier()]);
        out.put_slice(&[0, 0, 0, length]);
        if let Some(information) = self.information {
            out.put_slice(&[0x00, INFORMATION_BYTES - 2, 0x80, 0]);
            out.put_u64(information);
        }
        if let Some(specific) = self.specific {
            out.put_slice(&[0x02, SPECIFIC_BYTES - 2, 0, 0]);
            out.put_slice(&specific.encode());
            out.put_u8(0);
        }
        out.freeze()
    }
}

/// How a failed volume operation is told: the one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureAnswer {
    /// CHECK CONDITION.
    Check(Sense),
    /// BUSY: the same command again, later.
    Busy,
    /// TASK SET FULL: the same command again, when others have ended.
    TaskSetFull,
}

impl From<Failure> for FailureAnswer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreadable => Self::Check(Sense::new(
                SenseKey::MediumError,
                AdditionalSense::UNRECOVERED_READ_ERROR,
            )),
            Failure::Lost => Self::Check(Sense::new(
                SenseKey::MediumError,
                AdditionalSense::WRITE_ERROR,
            )),
            Failure::NoSpace => Self::Check(Sense::new(
                SenseKey::DataProtect,
                AdditionalSense::SPACE_ALLOCATION_FAILED,
            )),
            Failure::Unavailable => Self::Check(Sense::new(
                SenseKey::NotReady,
                AdditionalSense::NOT_ACCESSIBLE_TRANSITION,
            )),
            Failure::Stopping => Self::Busy,
            Failure::Busy => Self::TaskSetFull,
        }
    }
}

//! Who the device says it is. The same for the volume's life, on every node.

use ankole_proto::VolumeId;

/// The most bytes of the names in designators: page 83 and mode data must fit what initiators
/// read, and the T10 vendor designator repeats the volume's id.
pub const DESIGNATOR_TEXT_BYTES_MAX: usize = 223;

/// A name address authority identifier of type 3, "locally assigned": 60 bits that need no company
/// id from the IEEE.
///
/// The bits are the upper 60 of a 64-bit FNV-1a hash over the volume id's 16 big-endian bytes. The
/// hash must never change: initiators know the disk by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Naa(u64);

impl Naa {
    const LOCALLY_ASSIGNED: u64 = 0x3 << 60;
    const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01b3;

    /// The identifier of a volume.
    pub fn of(volume: VolumeId) -> Self {
        let hash = volume
            .bits()
            .to_be_bytes()
            .iter()
            .fold(Self::FNV_OFFSET_BASIS, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(Self::FNV_PRIME)
            });
        Self(Self::LOCALLY_ASSIGNED | (hash >> 4))
    }

    /// The eight bytes of the designator.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// What INQUIRY tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    volume: VolumeId,
    target_name: String,
    revision: [u8; 4],
}

impl Identity {
    /// T10 vendor identification, padded with spaces.
    pub const VENDOR: [u8; 8] = *b"ANKOLE  ";
    /// Product identification, padded with spaces.
    pub const PRODUCT: [u8; 16] = *b"VOLUME          ";

    /// Of a volume behind the target of this iSCSI name (cut at 223 bytes), served by software of
    /// this revision (four printable ASCII characters, such as `0001`).
    pub fn new(volume: VolumeId, target_name: &str, revision: [u8; 4]) -> Self {
        let mut target_name = target_name.to_owned();
        let mut end = target_name.len().min(DESIGNATOR_TEXT_BYTES_MAX);
        while !target_name.is_char_boundary(end) {
            end -= 1;
        }
        target_name.truncate(end);
        Self {
            volume,
            target_name,
            revision,
        }
    }

    /// The volume.
    pub const fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The NAA designator.
    pub fn naa(&self) -> Naa {
        Naa::of(self.volume)
    }

    /// The unit serial number: the volume id, 32 hexadecimal digits.
    pub fn serial(&self) -> String {
        self.volume.to_string()
    }

    pub(super) fn target_name(&self) -> &str {
        &self.target_name
    }

    pub(super) const fn revision(&self) -> [u8; 4] {
        self.revision
    }
}

//! Inputs with the structure that each target reads: what no luck would find byte by byte.

/// Where chance comes from: handed in, so that a seed makes the same input again.
pub struct Dice<'a> {
    source: &'a mut dyn FnMut() -> u64,
}

impl<'a> Dice<'a> {
    /// With these numbers.
    pub fn new(source: &'a mut dyn FnMut() -> u64) -> Self {
        Self { source }
    }

    /// Less than `bound`, 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = usize::try_from((self.source)() >> 1).unwrap_or(0);
        number.checked_rem(bound).unwrap_or(0)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        (self.source)().to_le_bytes()[3]
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Mostly small, sometimes at an edge, sometimes anything.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => (self.source)(),
            1 => u64::MAX - (self.source)() % 4,
            2 => 1 << self.below(64),
            3 => (1 << self.below(63)) - 1,
            _ => (self.source)() % 300,
        }
    }
}

/// Numbers at which something changes.
pub(super) const NUMBERS: &[&[u8]] = &[
    &[0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0, 0, 0, 8],
    &[0, 0, 2, 0],
    &[0, 0, 0x20, 0],
    &[0, 4, 0, 0],
    &[0, 0, 0x80, 0],
    &[0x40],
    &[0xff],
];

/// What login text is made of.
pub(super) const KEYS: &[&[u8]] = &[
    b"InitiatorName=iqn.2026-01.test:host\0",
    b"TargetName=iqn.2026-01.test:disk\0",
    b"SessionType=Discovery\0",
    b"SessionType=Normal\0",
    b"AuthMethod=CHAP,None\0",
    b"AuthMethod=None\0",
    b"CHAP_A=5\0",
    b"CHAP_A=7,5\0",
    b"CHAP_N=host\0",
    b"CHAP_R=0x00112233445566778899aabbccddeeff\0",
    b"CHAP_I=1\0",
    b"CHAP_C=0x03030303030303030303030303030303\0",
    b"CHAP_C=0bAwMDAwMDAwMDAwMDAwMDAw==\0",
    b"HeaderDigest=CRC32C,None\0",
    b"DataDigest=CRC32C\0",
    b"MaxRecvDataSegmentLength=262144\0",
    b"MaxBurstLength=16776192\0",
    b"FirstBurstLength=0x10000\0",
    b"InitialR2T=No\0",
    b"ImmediateData=Yes\0",
    b"MaxOutstandingR2T=65535\0",
    b"MaxConnections=8\0",
    b"ErrorRecoveryLevel=2\0",
    b"DefaultTime2Wait=2\0",
    b"TaskReporting=RFC3720,FastAbort\0",
    b"X-test=",
    b"=",
    b"\0",
];

/// Operation codes that the unit has, and a few that it has not.
const OPCODES: [u8; 46] = [
    0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f,
    0x34, 0x35, 0x37, 0x41, 0x42, 0x48, 0x55, 0x56, 0x57, 0x5a, 0x5e, 0x5f, 0x83, 0x84, 0x88, 0x89,
    0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9c, 0x9e, 0xa0, 0xa3, 0xa8, 0x04, 0x7f,
];

fn cdb(dice: &mut Dice<'_>) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = dice.pick(&OPCODES);
    cdb[1] = match dice.below(4) {
        0 => 0,
        1 => dice.pick(&[0x01, 0x02, 0x03, 0x04, 0x06, 0x08, 0x0c, 0x10, 0x12, 0x1f]),
        2 => dice.pick(&[0x18, 0x81, 0xa1, 0xa2, 0x09, 0x20]),
        _ => dice.byte(),
    };
    let long = cdb[0] >> 5 == 4;
    let (address, count) = (dice.number(), dice.number().to_be_bytes());
    if long {
        cdb[2..10].copy_from_slice(&address.to_be_bytes());
        cdb[10..14].copy_from_slice(&count[4..]);
    } else {
        cdb[2..6].copy_from_slice(&address.to_be_bytes()[4..]);
        cdb[7..9].copy_from_slice(&count[6..]);
        cdb[4] ^= if dice.once_in(2) { count[7] } else { 0 };
    }
    for _ in 0..dice.below(3) {
        let at = dice.below(16);
        cdb[at] = dice.byte();
    }
    cdb
}

/// A list that some command takes: of UNMAP, EXTENDED COPY, PERSISTENT RESERVE OUT, MODE SELECT or
/// SANITIZE, or anything.
fn parameters(dice: &mut Dice<'_>) -> Vec<u8> {
    match dice.below(7) {
        0 => {
            let count = dice.below(6);
            let mut list = vec![0, 0, 0, 0, 0, 0, 0, 0];
            list[3] = u8::try_from(count * 16).unwrap_or(u8::MAX);
            for _ in 0..count {
                list.extend(dice.number().to_be_bytes());
                list.extend(&dice.number().to_be_bytes()[4..]);
                list.extend([0; 4]);
            }
            list
        }
        1 => {
            let mut list = vec![0; 24];
            list[7] = dice.byte() & 3;
            list[15] = dice.byte() & 3;
            list[20] = dice.byte() & 0x0d;
            list
        }
        2 => {
            let pattern = dice.below(520);
            let mut list = vec![dice.byte(), 0];
            let told = u16::try_from(pattern).unwrap_or(u16::MAX);
            list.extend(told.to_be_bytes());
            list.extend(dice.bytes(pattern));
            list
        }
        3 => {
            let mut list = vec![0; 4];
            list.extend([8, 18, dice.byte() & 4]);
            list.extend([0; 17]);
            list.extend([10, 10, 0x20, 0x10, dice.byte() & 8]);
            list.extend([0; 7]);
            list
        }
        4 => copy_list(dice),
        _ => {
            let count = dice.below(600);
            dice.bytes(count)
        }
    }
}

fn copy_list(dice: &mut Dice<'_>) -> Vec<u8> {
    let segments = dice.below(4);
    let mut list = vec![0; 16];
    list[0] = dice.byte();
    list[3] = 32;
    list[11] = u8::try_from(segments * 28).unwrap_or(u8::MAX);
    let mut target = vec![0; 32];
    target[0] = 0xe4;
    target[4..8].copy_from_slice(&[1, 3, 0, 8]);
    target[8..16].copy_from_slice(&NAA_OF_VOLUME_1);
    list.extend(target);
    for _ in 0..segments {
        let mut segment = vec![0; 28];
        segment[0] = 2;
        segment[3] = 24;
        segment[10..12].copy_from_slice(&dice.number().to_be_bytes()[6..]);
        segment[12..20].copy_from_slice(&dice.number().to_be_bytes());
        segment[20..28].copy_from_slice(&dice.number().to_be_bytes());
        list.extend(segment);
    }
    list
}

/// The designator of the volume that the target has: see `scsi::Naa`.
const NAA_OF_VOLUME_1: [u8; 8] = [0x38, 0x82, 0x01, 0xeb, 0x96, 0x0f, 0xf6, 0x2b];

/// nexus and LUN, length of the data, CDB, dice, data: as `cdbs` reads it.
pub(super) fn cdbs(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..=dice.below(8) {
        let cdb = cdb(dice);
        let data = parameters(dice);
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let flags = dice.pick(&[0x01, 0x02, 0x11, 0x12, 0x13, 0x31, 0x1d]);
        input.push(flags);
        input.extend(length.to_le_bytes());
        let mut expected = u32::from(length).to_le_bytes();
        if dice.once_in(4) {
            expected[1] = dice.byte();
        }
        input.extend(&expected[..3]);
        let outcome = |dice: &mut Dice<'_>| match dice.once_in(6) {
            true => dice.byte(),
            false => 0xff,
        };
        let both = [outcome(dice), outcome(dice)];
        input.extend(both);
        input.extend(cdb);
        input.extend(data);
    }
    input
}

/// CHAP or not, then flags, length and text of each request.
pub(super) fn login_text(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut input = vec![dice.byte() & 1];
    for _ in 0..=dice.below(5) {
        let mut text: Vec<u8> = Vec::new();
        for _ in 0..dice.below(12) {
            text.extend(dice.pick(KEYS));
        }
        let flags = dice.pick(&[0x81, 0x87, 0x83, 0x00, 0x04, 0x40, 0x85]);
        input.push(flags);
        input.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
        input.extend(text);
    }
    input
}

fn header(dice: &mut Dice<'_>) -> [u8; 48] {
    let mut header = [0; 48];
    let opcode = dice.pick(&[
        0x00, 0x01, 0x01, 0x01, 0x02, 0x04, 0x05, 0x05, 0x06, 0x10, 0x3e,
    ]);
    header[0] = opcode | if dice.once_in(3) { 0x40 } else { 0 };
    header[1] = match opcode {
        0x01 => dice.pick(&[0xc0, 0xa0, 0xa1, 0xa2, 0x23, 0x20, 0xc3, 0xe0]),
        0x02 => 0x80 | dice.pick(&[1, 2, 3, 4, 5, 6, 7, 8, 9]),
        _ => dice.pick(&[0x80, 0x00, 0x81, 0x40]),
    };
    header[19] = dice.byte() & 0x0f;
    header[20..24].copy_from_slice(&dice.number().to_be_bytes()[4..]);
    header[27] = dice.byte() & 0x3f;
    if opcode == 0x05 {
        header[20..24].copy_from_slice(&u32::from(dice.byte() & 7).to_be_bytes());
        header[43] = dice.byte() & 3;
    } else {
        header[32..48].copy_from_slice(&cdb(dice));
    }
    for _ in 0..dice.below(2) {
        let at = dice.below(48);
        header[at] = dice.byte();
    }
    header
}

/// Digests, then PDUs whose lengths mostly tell the truth.
pub(super) fn pdus(dice: &mut Dice<'_>) -> Vec<u8> {
    let flags = dice.byte() & 7;
    let mut input = vec![flags];
    for _ in 0..=dice.below(6) {
        let mut header = header(dice);
        let data_bytes = dice.below(600);
        header[4] = if dice.once_in(5) { dice.byte() & 3 } else { 0 };
        let told = u32::try_from(data_bytes).unwrap_or(0).to_be_bytes();
        header[5..8].copy_from_slice(&told[1..]);
        if dice.once_in(20) {
            header[5] = dice.byte();
        }
        let mut head = header.to_vec();
        let additional = usize::from(header[4]) * 4;
        head.extend(dice.bytes(additional));
        let digest = ankole_proto::crc32c(&head).to_le_bytes();
        input.extend(&head);
        if flags & 1 != 0 {
            input.extend(digest);
        }
        let mut data = dice.bytes(data_bytes);
        data.resize(data_bytes.next_multiple_of(4), 0);
        let digest = ankole_proto::crc32c(&data).to_le_bytes();
        input.extend(&data);
        if flags & 2 != 0 && data_bytes > 0 {
            input.extend(digest);
        }
    }
    input
}

/// Logged in or not, then what happens: as `session` reads it.
pub(super) fn session(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut input = vec![if dice.once_in(8) { 1 } else { 0 }];
    let mut number = 0_u8;
    for _ in 0..dice.below(60) {
        match dice.below(8) {
            0 | 1 => input.push(dice.byte() & 0x1f),
            2 => input.push(0x20),
            3 => input.push(0x40 | (dice.byte() & 0x1f)),
            _ => {
                let mut header = header(dice);
                if !dice.once_in(6) {
                    // The next number, so that its turn comes.
                    header[24..28].copy_from_slice(&u32::from(number).to_be_bytes());
                    number = number.wrapping_add(u8::from(header[0] & 0x45 != 0x05));
                }
                let units = dice.byte() & 0x1f;
                input.push(0x80 | units);
                input.extend(header);
                input.extend(dice.bytes(usize::from(units) * 37));
            }
        }
    }
    input
}

/// A stored state without its checksum: as `scsi/stored.rs` lays it out.
pub(super) fn reservations(dice: &mut Dice<'_>) -> Vec<u8> {
    let count = dice.below(5);
    let mut input = vec![dice.pick(&[2, 2, 1]), dice.byte() & 1, 3, 0, 0, 0];
    input.extend(u16::try_from(count).unwrap_or(0).to_le_bytes());
    for _ in 0..count {
        input.extend(dice.bytes(14));
        let name = dice.below(30);
        input.push(u8::try_from(name).unwrap_or(0));
        input.extend((0..name).map(|_| b'a'));
    }
    input.push(dice.pick(&[0, 1, 3, 5, 6, 7, 8, 2]));
    input.push(dice.byte() & 3);
    input.push(0);
    if input.first() == Some(&2) {
        match dice.below(4) {
            0 => input.push(0),
            1 => input.extend([2, dice.byte() & 1]),
            2 => input.extend([3, dice.byte() & 1]),
            _ => {
                let pattern = 1 + dice.below(40);
                input.extend([1, 0, 1 + (dice.byte() & 15), dice.byte() & 1]);
                input.extend(u16::try_from(pattern).unwrap_or(1).to_le_bytes());
                input.extend(dice.bytes(pattern));
            }
        }
    }
    input
}

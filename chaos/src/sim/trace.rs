//! What happened, line by line, and a fingerprint of it.

use std::fmt::{self, Write};
use std::time::Duration;

/// The account of a run: always fingerprinted, printed when asked for.
#[derive(Debug, Default)]
pub struct Trace {
    print: bool,
    lines: u64,
    fingerprint: u64,
}

/// FNV-1a of what is written into it.
struct Hash(u64);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// Fingerprinted only.
    pub fn off() -> Self {
        Self::default()
    }

    /// Printed on standard output as well.
    pub fn printed() -> Self {
        Self {
            print: true,
            ..Self::default()
        }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, now: Duration, text: fmt::Arguments<'_>) {
        let mut hash = Hash(self.fingerprint ^ u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        // Hashing never fails, nor does writing what is hashed here.
        let _never = hash.write_fmt(text);
        self.fingerprint = hash.0.rotate_left(17);
        self.lines += 1;
        if self.print {
            println!("{:>12.6} {text}", now.as_secs_f64());
        }
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Equal for runs that went the same way.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

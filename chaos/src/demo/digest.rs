//! SHA-256 of a file, and of a unit read through the initiator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::initiator::{Command, Kind, Options, Outcome, Session};

const READ_BYTES: u64 = 1 << 20;
const DEPTH: usize = 8;
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Of a whole file.
pub(crate) fn of_file(path: &Path) -> anyhow::Result<String> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash)),
            bytes => hash.update(buffer.get(..bytes).context("read beyond the buffer")?),
        }
    }
}

/// Of a whole unit, read from front to back with several reads in flight.
pub(super) fn of_unit(url: &str) -> anyhow::Result<String> {
    let mut session = Session::connect(url, &Options::default())?;
    let bytes = session.geometry().bytes;
    let mut hash = Sha256::new();
    let mut answered: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut next, mut hashed) = (0, 0);
    let mut last_answer = Instant::now();
    while hashed < bytes {
        while session.in_flight() < DEPTH && next < bytes {
            let length = READ_BYTES.min(bytes - next);
            submit(&mut session, next, vec![0; usize::try_from(length)?])?;
            next += length;
        }
        for completion in session
            .wait(Duration::from_millis(200))
            .map_err(anyhow::Error::msg)?
        {
            last_answer = Instant::now();
            match completion.outcome {
                Outcome::Done => drop(answered.insert(completion.offset, completion.buffer)),
                Outcome::Again(_) => {
                    submit(&mut session, completion.offset, completion.buffer)?;
                }
                Outcome::Failed(reason) => bail!("read at {}: {reason}", completion.offset),
            }
        }
        ensure!(
            last_answer.elapsed() < SILENCE_LIMIT,
            "the unit does not answer"
        );
        while let Some(data) = answered.remove(&hashed) {
            hash.update(&data);
            hashed += data.len() as u64;
        }
    }
    session.log_out();
    Ok(hex(hash))
}

fn submit(session: &mut Session, offset: u64, buffer: Vec<u8>) -> anyhow::Result<()> {
    let command = Command {
        token: offset,
        kind: Kind::Read,
        offset,
        buffer,
    };
    session.submit(command).map_err(anyhow::Error::msg)
}

//! Reading back everything that was ever written.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use super::sector::{SECTOR_BYTES, verify};
use super::{Durable, Shadow};
use crate::initiator::{Command, Completion, Kind, Options, Outcome, Session};

const DEPTH: usize = 16;
const EXAMPLES_MAX: usize = 20;
/// A target that does not answer for so long is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Blocks that were ever issued, and read now.
    pub blocks: u64,
    /// Those that do not hold what they must.
    pub mismatches: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// Reads every block that the shadow knows of and compares it with what it must hold.
pub fn check(url: &str, shadow: &Path, durable: Durable) -> anyhow::Result<Findings> {
    let shadow = Shadow::open(shadow)?;
    let mut session = Session::connect(url, &Options::default())?;
    let mut findings = Findings::default();
    let written = |block: &u64| shadow.entry(*block).issued > 0;
    let mut blocks = (0..shadow.shape().blocks).filter(written);
    let mut last_answer = std::time::Instant::now();
    loop {
        while session.in_flight() < DEPTH {
            let Some(block) = blocks.next() else { break };
            submit(&mut session, &shadow, block)?;
        }
        if session.in_flight() == 0 {
            return Ok(findings);
        }
        let completions = session
            .wait(Duration::from_millis(200))
            .map_err(anyhow::Error::msg)?;
        if !completions.is_empty() {
            last_answer = std::time::Instant::now();
        } else if last_answer.elapsed() > SILENCE_LIMIT {
            bail!("no answer for {} s", SILENCE_LIMIT.as_secs());
        }
        for completion in completions {
            match &completion.outcome {
                Outcome::Done => judge(&shadow, durable, &completion, &mut findings),
                Outcome::Again(_) => submit(&mut session, &shadow, completion.token)?,
                Outcome::Failed(reason) => bail!("block {}: {reason}", completion.token),
            }
        }
    }
}

fn submit(session: &mut Session, shadow: &Shadow, block: u64) -> anyhow::Result<()> {
    let shape = shadow.shape();
    let bytes = usize::try_from(shape.block_bytes).context("block too long")?;
    let command = Command {
        token: block,
        kind: Kind::Read,
        offset: shape.offset + block * shape.block_bytes,
        buffer: vec![0xa5; bytes],
    };
    session.submit(command).map_err(anyhow::Error::msg)
}

fn judge(shadow: &Shadow, durable: Durable, completion: &Completion, findings: &mut Findings) {
    let entry = shadow.entry(completion.token);
    let low = match durable {
        Durable::Acknowledged => entry.acknowledged,
        Durable::Flushed => entry.flushed,
    };
    findings.blocks += 1;
    let first_sector = completion.offset / SECTOR_BYTES as u64;
    // A write that was never answered may have reached the unit in part.
    let whole = entry.issued == entry.acknowledged && durable == Durable::Acknowledged;
    let seed = shadow.shape().seed;
    if let Err(reason) = verify(
        &completion.buffer,
        first_sector,
        seed,
        (low, entry.issued),
        whole,
    ) {
        findings.mismatches += 1;
        if findings.examples.len() < EXAMPLES_MAX {
            findings
                .examples
                .push(format!("block {}: {reason}", completion.token));
        }
    }
}

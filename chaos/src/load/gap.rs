//! Times without any answer, written down as they end, so that they outlive a kill of the load.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Shorter ones are not worth a line.
const GAP_MIN: Duration = Duration::from_millis(100);

/// A time in which operations were in flight and none was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it lasted.
    pub length_ms: u64,
}

/// The file that a load writes its gaps to, one JSON document a line.
#[derive(Debug)]
pub struct GapLog(File);

impl GapLog {
    /// Adds to this file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        file.map(Self)
            .with_context(|| format!("cannot open {}", path.display()))
    }

    /// A gap of this length ends now.
    pub fn ended(&mut self, length: Duration) -> anyhow::Result<()> {
        if length < GAP_MIN {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let gap = Gap {
            at_ms: u64::try_from(now.saturating_sub(length).as_millis())?,
            length_ms: u64::try_from(length.as_millis())?,
        };
        writeln!(self.0, "{}", serde_json::to_string(&gap)?)?;
        Ok(())
    }
}

/// The gaps that loads have written to this file; none when there is no such file.
pub fn gaps(path: &Path) -> anyhow::Result<Vec<Gap>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{line:?} is no gap")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gaps_are_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gaps");
        assert_eq!(gaps(&path).unwrap(), []);
        let mut log = GapLog::open(&path).unwrap();
        log.ended(Duration::from_millis(20)).unwrap();
        log.ended(Duration::from_millis(2500)).unwrap();
        drop(log);
        GapLog::open(&path)
            .unwrap()
            .ended(Duration::from_secs(1))
            .unwrap();
        let lengths: Vec<_> = gaps(&path)
            .unwrap()
            .iter()
            .map(|gap| gap.length_ms)
            .collect();
        assert_eq!(lengths, [2500, 1000]);
    }
}

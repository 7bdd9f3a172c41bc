//! `ankole-meta inspect`.

use std::fmt::{self, Write};
use std::path::Path;

use super::{Directory, DirectoryError};
use crate::raft::{InspectError, Inspection, inspect};

/// A store that cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It cannot be opened.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The description cannot be written.
    #[error(transparent)]
    Format(#[from] fmt::Error),
}

/// Describes the store of a stopped manager.
///
/// # Errors
///
/// When there is none, when its manager runs, or when it cannot be read.
pub fn report(directory: &Path) -> Result<String, ReportError> {
    let (id, store) = Directory::open_store(directory)?;
    let mut text = String::new();
    describe(&mut text, id, &inspect(&store)?)?;
    Ok(text)
}

fn describe(out: &mut impl Write, id: u64, found: &Inspection) -> fmt::Result {
    let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |n| n.to_string());
    let cluster = found.cluster_id.map(|id| id.to_string());
    writeln!(out, "manager    {id}")?;
    writeln!(out, "cluster    {}", cluster.as_deref().unwrap_or("-"))?;
    writeln!(out, "term       {}", found.term)?;
    writeln!(out, "vote       {}", number(found.voted_for))?;
    writeln!(out, "last log   {}", number(found.last_log))?;
    writeln!(out, "purged     {}", number(found.purged))?;
    writeln!(out, "committed  {}", number(found.committed))?;
    writeln!(out, "applied    {}", number(found.applied))?;
    writeln!(out, "records    {}", found.records)?;
    for member in &found.members {
        writeln!(out, "member     {} at {}", member.id, member.address)?;
    }
    Ok(())
}

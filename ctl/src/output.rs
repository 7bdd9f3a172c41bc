//! Tables and JSON.

use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::cli::Output;

/// Something that is shown as a row of a table, or as JSON.
pub(crate) trait Row: Serialize {
    /// The columns' titles.
    const COLUMNS: &'static [&'static str];
    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
}

/// Prints a line. A reader that has gone away (`ankole … | head`) is an error, not a panic.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Whether it failed only because nobody reads its output any more: nothing to tell anybody.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a list.
pub(crate) fn list<R: Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => json(rows),
        Output::Table => line(table(rows)),
    }
}

/// Prints one thing as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(thing: &T) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(thing)?)
}

/// The rows under their titles, without borders.
pub(crate) fn table<R: Row>(rows: &[R]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(R::COLUMNS.iter().copied());
    for row in rows {
        table.add_row(row.cells());
    }
    table
}

//! Tables and JSON.

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

/// Prints a list.
pub(crate) fn list<R: Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => json(rows),
        Output::Table => {
            println!("{}", table(rows));
            Ok(())
        }
    }
}

/// Prints one thing as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(thing: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(thing)?);
    Ok(())
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

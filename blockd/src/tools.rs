//! The offline tools: `inspect`, `verify`, `export`. They write nothing to a store.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ankole_blockd::replica::{self, Inspection, LoadError, Verification};
use ankole_blockd::store::Offline;
use ankole_proto::LayerId;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A directory given as --disk, or one replica's directory below it.
    path: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A directory given as --disk, or one replica's directory below it.
    path: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// One replica's directory.
    replica: PathBuf,
    /// The sealed layer to export; without it the volume as it was last written.
    #[arg(long)]
    layer: Option<LayerId>,
    /// The file to write, sparse; it must not exist.
    file: PathBuf,
}

/// What was found in one replica, or why nothing was.
#[derive(Serialize)]
struct Looked<T> {
    directory: String,
    #[serde(flatten)]
    found: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Looks at every replica below the path. The second value: whether all could be read.
fn look<T>(
    found: &Offline,
    mut looked_at: impl FnMut(&Path),
    read: impl Fn(&ankole_blockd::disk::LocalDisk, &Path) -> Result<T, LoadError>,
) -> (Vec<Looked<T>>, bool) {
    let mut all_read = true;
    let results = found
        .replicas
        .iter()
        .map(|(disk, directory)| {
            let full = disk.root().join(directory);
            let result = read(disk, directory);
            looked_at(&full);
            let (found, error) = match result {
                Ok(found) => (Some(found), None),
                Err(error) => {
                    all_read = false;
                    let error = anyhow::Error::from(error);
                    (None, Some(format!("{error:#}")))
                }
            };
            Looked {
                directory: full.display().to_string(),
                found,
                error,
            }
        })
        .collect();
    (results, all_read)
}

/// Prints what each replica says of itself.
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let found = Offline::find(&args.path)?;
    let (results, all_read) = look(&found, |_| {}, replica::inspect);
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&results)?)?,
        Output::Text => {
            for result in &results {
                writeln!(out, "{}", result.directory)?;
                if let Some(error) = &result.error {
                    writeln!(out, "  error: {error}")?;
                }
                if let Some(inspection) = &result.found {
                    print_inspection(&mut out, inspection)?;
                }
            }
            writeln!(out, "{} replicas", results.len())?;
        }
    }
    Ok(code(all_read))
}

fn print_inspection(out: &mut impl Write, inspection: &Inspection) -> anyhow::Result<()> {
    let word = |value: serde_json::Value| match value {
        serde_json::Value::String(word) => word,
        other => other.to_string(),
    };
    writeln!(out, "  volume  {}", inspection.volume)?;
    writeln!(out, "  size    {} bytes", inspection.size_bytes)?;
    writeln!(out, "  epoch   {}", inspection.epoch)?;
    writeln!(
        out,
        "  state   {}",
        word(serde_json::to_value(&inspection.state)?)
    )?;
    writeln!(
        out,
        "  stopped {}",
        word(serde_json::to_value(inspection.stop)?)
    )?;
    for layer in &inspection.layers {
        let mut notes = Vec::new();
        if layer.layer == inspection.head {
            notes.push("head");
        }
        if layer.removing {
            notes.push("being merged away");
        }
        if layer.unsettled {
            notes.push("sums in doubt");
        }
        if layer.shared {
            notes.push("shared with a clone");
        }
        writeln!(
            out,
            "  layer   {} on {:<16} {:>14} bytes, {:>14} reclaimable {}",
            layer.layer,
            layer.parent.as_deref().unwrap_or("-"),
            layer.used_bytes,
            layer.reclaimable_bytes,
            notes.join(", ")
        )?;
    }
    Ok(())
}

/// Compares every block with its checksum; fails when anything is wrong.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let found = Offline::find(&args.path)?;
    let total = found.replicas.len();
    let mut number = 0;
    let progress = |directory: &Path| {
        number += 1;
        eprintln!("verified {number} of {total}: {}", directory.display());
    };
    let (results, all_read) = look(&found, progress, replica::verify);
    let damaged: u64 = results
        .iter()
        .filter_map(|result| result.found.as_ref())
        .map(|found| found.damaged)
        .sum();
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&results)?)?,
        Output::Text => {
            for result in &results {
                print_verification(&mut out, result)?;
            }
            let verdict = if damaged == 0 && all_read {
                "sound"
            } else {
                "DAMAGED"
            };
            writeln!(out, "{total} replicas: {verdict}")?;
        }
    }
    Ok(code(all_read && damaged == 0))
}

fn print_verification(out: &mut impl Write, looked: &Looked<Verification>) -> io::Result<()> {
    writeln!(out, "{}", looked.directory)?;
    if let Some(error) = &looked.error {
        writeln!(out, "  error: {error}")?;
    }
    let Some(found) = &looked.found else {
        return Ok(());
    };
    writeln!(
        out,
        "  {} blocks in {} layers, {} damaged, {} whose sum an unclean stop may have left behind",
        found.blocks, found.layers, found.damaged, found.unsettled_blocks
    )?;
    for finding in &found.findings {
        writeln!(out, "  {finding}")?;
    }
    Ok(())
}

/// Writes a volume's contents to a sparse file.
pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let found = Offline::find(&args.replica)?;
    let [(disk, directory)] = &found.replicas[..] else {
        bail!(
            "{} holds {} replicas: name one replica's directory",
            args.replica.display(),
            found.replicas.len()
        );
    };
    let name = args.file.display().to_string();
    let file = File::create_new(&args.file).with_context(|| format!("cannot create {name}"))?;
    let mut bytes = 0u64;
    let written = replica::export(disk, directory, args.layer, |offset, data| {
        bytes += data.len() as u64;
        file.write_all_at(data, offset)
    })
    .map_err(anyhow::Error::from)
    .and_then(|size| {
        file.set_len(size.bytes())?;
        file.sync_all()?;
        Ok(size)
    });
    match written {
        Ok(size) => {
            println!("{name}: {} bytes, {bytes} of them data", size.bytes());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // A part of a volume must not be taken for one.
            std::fs::remove_file(&args.file).with_context(|| format!("cannot remove {name}"))?;
            Err(error)
        }
    }
}

fn code(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

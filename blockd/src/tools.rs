//! The offline tools: `inspect`, `verify`, `export`. They write nothing to a store, and need it for
//! reading only.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ankole_blockd::replica::{
    self, ExportRequest, Exported, InspectedLayer, Inspection, LoadError, OnDamage, OnPartial,
    StoredState, Verification,
};
use ankole_blockd::store::Offline;
use ankole_proto::LayerId;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// The exit code of an export that has written a file which is not the whole volume.
const NOT_WHOLE: u8 = 3;

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
    /// Go on where something is damaged: what cannot be read is left as zeros and listed, and the
    /// exit code is 3.
    #[arg(long)]
    skip_damaged: bool,
    /// Also export a replica that is being rebuilt or is faulted; the exit code is 3.
    #[arg(long)]
    incomplete: bool,
    /// The file to write, sparse; it must not exist.
    file: PathBuf,
}

impl ExportArgs {
    fn request(&self) -> ExportRequest {
        ExportRequest {
            layer: self.layer,
            damage: if self.skip_damaged {
                OnDamage::Skip
            } else {
                OnDamage::Refuse
            },
            partial: if self.incomplete {
                OnPartial::Take
            } else {
                OnPartial::Refuse
            },
        }
    }
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
    let mut inspected = results.iter().filter_map(|result| result.found.as_ref());
    let sound = all_read && inspected.all(Inspection::is_sound);
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
            let verdict = if sound { "" } else { ": DAMAGED" };
            writeln!(out, "{} replicas{verdict}", results.len())?;
        }
    }
    if !sound {
        advise();
    }
    Ok(code(sound))
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
    for finding in &inspection.findings {
        writeln!(out, "  wrong   {finding}")?;
    }
    for layer in &inspection.layers {
        print_layer(out, layer, layer.layer == inspection.head)?;
    }
    Ok(())
}

fn print_layer(out: &mut impl Write, layer: &InspectedLayer, is_head: bool) -> io::Result<()> {
    let notes = [
        (is_head, "head"),
        (layer.removing, "being merged away"),
        (layer.unsettled, "sums in doubt"),
        (layer.shared, "shared with a clone"),
        (layer.damaged > 0, "DAMAGED"),
    ];
    let notes: Vec<&str> = notes
        .iter()
        .filter_map(|(applies, note)| applies.then_some(*note))
        .collect();
    writeln!(
        out,
        "  layer   {} on {:<16} {:>14} bytes, {:>14} reclaimable {}",
        layer.layer,
        layer.parent.as_deref().unwrap_or("-"),
        layer.used_bytes,
        layer.reclaimable_bytes,
        notes.join(", ")
    )?;
    for finding in &layer.findings {
        writeln!(out, "    wrong {finding}")?;
    }
    let more = layer.damaged.saturating_sub(layer.findings.len() as u64);
    if more > 0 {
        writeln!(out, "    wrong in {more} more places")?;
    }
    Ok(())
}

/// What to do about damage.
fn advise() {
    eprintln!(
        "A replica whose volume has another one in sync: delete it, it is rebuilt. Else read what \
         can be read with `export --skip-damaged` before anything else."
    );
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
    if !all_read || damaged > 0 {
        advise();
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
    let written = replica::salvage(disk, directory, &args.request(), |offset, data| {
        bytes += data.len() as u64;
        file.write_all_at(data, offset)
    })
    .map_err(anyhow::Error::from)
    .and_then(|exported| {
        file.set_len(exported.size.bytes())?;
        file.sync_all()?;
        Ok(exported)
    });
    match written {
        Ok(exported) => {
            let size = exported.size.bytes();
            println!("{name}: {size} bytes, {bytes} of them data");
            tell_what_lacks(&name, &exported);
            Ok(if exported.is_whole() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(NOT_WHOLE)
            })
        }
        Err(error) => {
            // A part of a volume must not be taken for one.
            std::fs::remove_file(&args.file).with_context(|| format!("cannot remove {name}"))?;
            Err(error)
        }
    }
}

/// Lists what of the volume is not in the file, or may not be.
fn tell_what_lacks(name: &str, exported: &Exported) {
    for trouble in &exported.troubles {
        eprintln!("warning: {trouble}");
    }
    if exported.unsettled_blocks > 0 {
        eprintln!(
            "warning: {} blocks do not match their checksums, as an unclean stop may leave them: \
             they are in the file as they were found",
            exported.unsettled_blocks
        );
    }
    let unreadable = &exported.unreadable;
    for range in &unreadable.told {
        println!(
            "unreadable: layer {} offset {} length {}",
            range.layer, range.offset, range.length
        );
    }
    if unreadable.ranges > 0 {
        println!(
            "unreadable in all: {} bytes in {} ranges, the first {} listed; zeros in the file",
            unreadable.bytes,
            unreadable.ranges,
            unreadable.told.len()
        );
    }
    match &exported.state {
        StoredState::Ready => {}
        StoredState::Rebuilding => eprintln!("warning: the replica was being rebuilt"),
        StoredState::Faulted { reason } => {
            eprintln!("warning: the replica is faulted: {reason}");
        }
    }
    if !exported.is_whole() {
        eprintln!("warning: {name} is NOT the whole volume");
    }
}

fn code(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

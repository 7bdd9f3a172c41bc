//! The verbs of volumes.

use std::io::Read;
use std::path::Path;

use ankole_proto::rpc::v1 as rpc;
use anyhow::{Context, bail};

use super::{ask, show_deleted};
use crate::cli::{ManagerArgs, Output, Settings, VolumeCommand, WriteCache};
use crate::managers::{Managers, request_id};
use crate::output;
use crate::view::VolumeView;

/// A secret has at most 128 bytes; a file that is longer by far is another file.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

pub(crate) async fn volume(
    command: VolumeCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let mut managers = Managers::new(managers)?;
    match command {
        VolumeCommand::List => list_volumes(&mut managers, output).await,
        VolumeCommand::Delete { volume } => delete_volume(&mut managers, volume, output).await,
        command => show_volume(one(&mut managers, command).await?, output),
    }
}

/// The id of the snapshot that VOLUME/SNAPSHOT names.
async fn snapshot_id(managers: &mut Managers, text: &str) -> anyhow::Result<String> {
    let Some((volume, snapshot)) = text.split_once('/') else {
        bail!("{text:?} names no snapshot; write VOLUME/SNAPSHOT");
    };
    let request = rpc::ListSnapshotsRequest {
        volume: volume.to_owned(),
    };
    let all = ask!(managers, list_snapshots, request).snapshots;
    let deleting = |one: &rpc::Snapshot| one.state() == rpc::SnapshotState::Deleting;
    let named = all
        .into_iter()
        .filter(|one| one.id == snapshot || one.name == snapshot);
    let found = named.min_by_key(deleting);
    let hint = "see which there are with `ankole snapshot list`";
    found
        .map(|one| one.id)
        .with_context(|| format!("volume {volume:?} has no snapshot {snapshot:?}; {hint}"))
}

/// A verb that answers with the volume.
async fn one(managers: &mut Managers, command: VolumeCommand) -> anyhow::Result<rpc::Volume> {
    let request_id = request_id();
    Ok(match command {
        VolumeCommand::Create { .. } => new(managers, command, request_id).await?,
        VolumeCommand::Get { volume } => {
            ask!(managers, get_volume, rpc::GetVolumeRequest { volume })
        }
        VolumeCommand::Attach {
            volume,
            node,
            force,
        } => {
            let mode = if force {
                rpc::AttachMode::Force
            } else {
                rpc::AttachMode::Unspecified
            };
            let request = rpc::AttachVolumeRequest {
                volume,
                node: node.unwrap_or_default(),
                request_id,
                revision: 0,
                mode: mode.into(),
            };
            ask!(managers, attach_volume, request)
        }
        VolumeCommand::Detach { volume } => {
            let request = rpc::DetachVolumeRequest {
                volume,
                request_id,
                revision: 0,
            };
            ask!(managers, detach_volume, request)
        }
        VolumeCommand::Restart { volume } => {
            let request = rpc::RestartVolumeRequest {
                volume,
                request_id,
                revision: 0,
            };
            ask!(managers, restart_volume, request)
        }
        VolumeCommand::Update { .. } => update(managers, command, request_id).await?,
        VolumeCommand::Expand {
            volume,
            size,
            revision,
        } => {
            let request = rpc::ExpandVolumeRequest {
                volume,
                size_bytes: size,
                request_id,
                revision,
            };
            ask!(managers, expand_volume, request)
        }
        VolumeCommand::Scrub { volume } => {
            let request = rpc::ScrubVolumeRequest { volume, request_id };
            ask!(managers, scrub_volume, request)
        }
        VolumeCommand::List | VolumeCommand::Delete { .. } => bail!("answers with no volume"),
    })
}

async fn new(
    managers: &mut Managers,
    command: VolumeCommand,
    request_id: String,
) -> anyhow::Result<rpc::Volume> {
    let VolumeCommand::Create {
        name,
        size,
        from_snapshot,
        replicas,
        settings,
    } = command
    else {
        bail!("this creates nothing");
    };
    let source_snapshot_id = match from_snapshot {
        Some(text) => snapshot_id(managers, &text).await?,
        None => String::new(),
    };
    let request = rpc::CreateVolumeRequest {
        name,
        size_bytes: size.unwrap_or(0),
        replica_count: replicas,
        request_id,
        write_cache: write_cache(&settings).into(),
        chap: chap(&settings)?,
        source_snapshot_id,
        rebuild_bytes_per_second: settings.rebuild_rate.unwrap_or(0),
    };
    Ok(ask!(managers, create_volume, request))
}

async fn update(
    managers: &mut Managers,
    command: VolumeCommand,
    request_id: String,
) -> anyhow::Result<rpc::Volume> {
    let VolumeCommand::Update {
        volume,
        replicas,
        settings,
        no_chap,
        revision,
    } = command
    else {
        bail!("this is no update");
    };
    let chap = chap(&settings)?;
    let write_cache = write_cache(&settings);
    let nothing = write_cache == rpc::WriteCache::Unspecified && chap.is_none() && !no_chap;
    if replicas.is_none() && settings.rebuild_rate.is_none() && nothing {
        bail!(
            "nothing is to be changed: give --replicas, --write-cache, --rebuild-rate, --chap-user or \
             --no-chap"
        );
    }
    let request = rpc::UpdateVolumeRequest {
        volume,
        replica_count: replicas.unwrap_or(0),
        write_cache: write_cache.into(),
        chap: (chap.is_some() || no_chap).then_some(rpc::ChapChange { chap }),
        request_id,
        revision,
        rebuild_bytes_per_second: settings.rebuild_rate,
    };
    Ok(ask!(managers, update_volume, request))
}

fn write_cache(settings: &Settings) -> rpc::WriteCache {
    match settings.write_cache {
        None => rpc::WriteCache::Unspecified,
        Some(WriteCache::On) => rpc::WriteCache::On,
        Some(WriteCache::Off) => rpc::WriteCache::Off,
    }
}

/// What logins have to prove, when that is set.
fn chap(settings: &Settings) -> anyhow::Result<Option<rpc::Chap>> {
    let (Some(user), Some(file)) = (&settings.chap_user, &settings.chap_secret_file) else {
        return Ok(None);
    };
    let mutual_secret = match &settings.chap_mutual_secret_file {
        None => String::new(),
        Some(file) => secret(file)?,
    };
    Ok(Some(rpc::Chap {
        user: user.clone(),
        secret: secret(file)?,
        mutual_user: settings.chap_mutual_user.clone().unwrap_or_default(),
        mutual_secret,
    }))
}

/// The secret in a file, without the end of its line. Never on the command line, which every process
/// of the machine can read.
fn secret(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = SECRET_FILE_BYTES_MAX + 1;
    let read = if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(limit).read_to_string(&mut text))
    };
    let shown = file.display();
    let bytes = read.with_context(|| format!("cannot read the secret in {shown}"))?;
    if bytes as u64 >= limit {
        bail!("{shown} is longer than any secret; give a file that holds only the secret");
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn list_volumes(managers: &mut Managers, output: Output) -> anyhow::Result<()> {
    let answer = ask!(managers, list_volumes, rpc::ListVolumesRequest {});
    let volumes: Vec<VolumeView> = answer.volumes.into_iter().map(VolumeView::from).collect();
    output::list(&volumes, output)
}

async fn delete_volume(
    managers: &mut Managers,
    volume: String,
    output: Output,
) -> anyhow::Result<()> {
    let request = rpc::DeleteVolumeRequest {
        volume,
        request_id: request_id(),
        revision: 0,
    };
    ask!(managers, delete_volume, request.clone());
    show_deleted(&format!("volume {}", request.volume), output)
}

pub(super) fn show_volume(volume: rpc::Volume, output: Output) -> anyhow::Result<()> {
    let volume = VolumeView::from(volume);
    if output == Output::Json {
        return output::json(&volume);
    }
    output::line(output::table(std::slice::from_ref(&volume)))?;
    output::line("")?;
    output::line(output::table(&volume.replicas))?;
    if let Some(comparison) = &volume.comparison {
        output::line("")?;
        output::line(comparison.line())?;
    }
    let damages = volume.damages();
    if damages.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::line(output::table(&damages))?;
    match volume.unlisted_damages() {
        0 => Ok(()),
        more => output::line(format_args!("and {more} more that are not listed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (content, expected) in [("open sesame 1\n", "open sesame 1"), ("a b\r\n", "a b")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret(&path).unwrap(), expected);
        }
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(secret(&path).is_err());
        assert!(secret(&directory.path().join("missing")).is_err());
    }
}

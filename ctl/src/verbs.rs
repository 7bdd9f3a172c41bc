//! The verbs: one call to the managers each, and its answer shown.

use ankole_proto::rpc::v1 as rpc;

use crate::cli::{
    ClusterCommand, EventCommand, ManagerArgs, NodeCommand, Output, SnapshotCommand, VolumeCommand,
};
use crate::managers::{Managers, request_id};
use crate::output;
use crate::view::{ClusterView, EventView, NodeView, SnapshotView, VolumeView};

pub(crate) async fn volume(
    command: VolumeCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let mut managers = Managers::new(managers)?;
    let request_id = request_id();
    let volume = match command {
        VolumeCommand::Create {
            name,
            size,
            replicas,
        } => {
            let request = rpc::CreateVolumeRequest {
                name,
                size_bytes: size,
                replica_count: replicas,
                request_id,
            };
            managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.create_volume(request).await }
                })
                .await?
        }
        VolumeCommand::List => return list_volumes(&mut managers, output).await,
        VolumeCommand::Get { volume } => {
            let request = rpc::GetVolumeRequest { volume };
            managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.get_volume(request).await }
                })
                .await?
        }
        VolumeCommand::Delete { volume } => {
            return delete_volume(&mut managers, volume, request_id).await;
        }
        VolumeCommand::Attach { volume, node } => {
            let node = node.unwrap_or_default();
            let request = rpc::AttachVolumeRequest {
                volume,
                node,
                request_id,
                revision: 0,
            };
            managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.attach_volume(request).await }
                })
                .await?
        }
        VolumeCommand::Detach { volume } => {
            let request = rpc::DetachVolumeRequest {
                volume,
                request_id,
                revision: 0,
            };
            managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.detach_volume(request).await }
                })
                .await?
        }
    };
    show_volume(volume, output)
}

async fn list_volumes(managers: &mut Managers, output: Output) -> anyhow::Result<()> {
    let answer = managers
        .call(|mut admin| async move { admin.list_volumes(rpc::ListVolumesRequest {}).await })
        .await?;
    let volumes: Vec<VolumeView> = answer.volumes.into_iter().map(VolumeView::from).collect();
    output::list(&volumes, output)
}

async fn delete_volume(
    managers: &mut Managers,
    volume: String,
    request_id: String,
) -> anyhow::Result<()> {
    let request = rpc::DeleteVolumeRequest {
        volume,
        request_id,
        revision: 0,
    };
    managers
        .call(|mut admin| {
            let request = request.clone();
            async move { admin.delete_volume(request).await }
        })
        .await?;
    println!("volume {} deleted", request.volume);
    Ok(())
}

fn show_volume(volume: rpc::Volume, output: Output) -> anyhow::Result<()> {
    let volume = VolumeView::from(volume);
    if output == Output::Json {
        return output::json(&volume);
    }
    println!("{}", output::table(std::slice::from_ref(&volume)));
    println!();
    output::list(&volume.replicas, output)
}

pub(crate) async fn snapshot(
    command: SnapshotCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let mut managers = Managers::new(managers)?;
    let request_id = request_id();
    match command {
        SnapshotCommand::Create { volume, name } => {
            let request = rpc::CreateSnapshotRequest {
                volume,
                name,
                request_id,
            };
            let snapshot = managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.create_snapshot(request).await }
                })
                .await?;
            show_snapshot(snapshot, output)
        }
        SnapshotCommand::List { volume } => {
            let request = rpc::ListSnapshotsRequest {
                volume: volume.unwrap_or_default(),
            };
            let answer = managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.list_snapshots(request).await }
                })
                .await?;
            let snapshots: Vec<SnapshotView> = answer
                .snapshots
                .into_iter()
                .map(SnapshotView::from)
                .collect();
            output::list(&snapshots, output)
        }
        SnapshotCommand::Revert { volume, snapshot } => {
            let request = rpc::RevertVolumeRequest {
                volume,
                snapshot,
                request_id,
            };
            let volume = managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.revert_volume(request).await }
                })
                .await?;
            show_volume(volume, output)
        }
        SnapshotCommand::Delete { volume, snapshot } => {
            let request = rpc::DeleteSnapshotRequest {
                volume,
                snapshot,
                request_id,
            };
            managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.delete_snapshot(request).await }
                })
                .await?;
            println!(
                "snapshot {} of volume {} deleted",
                request.snapshot, request.volume
            );
            Ok(())
        }
    }
}

fn show_snapshot(snapshot: rpc::Snapshot, output: Output) -> anyhow::Result<()> {
    let snapshot = SnapshotView::from(snapshot);
    match output {
        Output::Json => output::json(&snapshot),
        Output::Table => output::list(&[snapshot], output),
    }
}

pub(crate) async fn node(
    command: NodeCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let mut managers = Managers::new(managers)?;
    match command {
        NodeCommand::List => output::list(&nodes(&mut managers).await?, output),
        NodeCommand::Get { name } => {
            let request = rpc::GetNodeRequest { name };
            let node = managers
                .call(|mut admin| {
                    let request = request.clone();
                    async move { admin.get_node(request).await }
                })
                .await?;
            let node = NodeView::from(node);
            if output == Output::Json {
                return output::json(&node);
            }
            println!("{}", output::table(std::slice::from_ref(&node)));
            println!();
            output::list(&node.disks, output)
        }
    }
}

/// All nodes.
pub(crate) async fn nodes(managers: &mut Managers) -> anyhow::Result<Vec<NodeView>> {
    let answer = managers
        .call(|mut admin| async move { admin.list_nodes(rpc::ListNodesRequest {}).await })
        .await?;
    Ok(answer.nodes.into_iter().map(NodeView::from).collect())
}

/// The managers and who leads them.
pub(crate) async fn cluster_view(managers: &mut Managers) -> anyhow::Result<ClusterView> {
    let answer = managers
        .call(|mut admin| async move { admin.get_cluster(rpc::GetClusterRequest {}).await })
        .await?;
    Ok(ClusterView::from(answer))
}

pub(crate) async fn cluster(
    command: ClusterCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let ClusterCommand::Status = command;
    let cluster = cluster_view(&mut Managers::new(managers)?).await?;
    if output == Output::Json {
        return output::json(&cluster);
    }
    println!("{}", cluster.heading());
    output::list(&cluster.managers, output)
}

pub(crate) async fn event(
    command: EventCommand,
    managers: &ManagerArgs,
    output: Output,
) -> anyhow::Result<()> {
    let mut managers = Managers::new(managers)?;
    match command {
        EventCommand::List { limit, after } => {
            let request = rpc::ListEventsRequest { after, limit };
            let answer = managers
                .call(|mut admin| async move { admin.list_events(request).await })
                .await?;
            let events: Vec<EventView> = answer.events.into_iter().map(EventView::from).collect();
            output::list(&events, output)
        }
        EventCommand::Watch => watch(&mut managers, output).await,
    }
}

async fn watch(managers: &mut Managers, output: Output) -> anyhow::Result<()> {
    let mut stream = managers
        .call(|mut admin| async move { admin.watch(rpc::WatchRequest {}).await })
        .await?;
    while let Some(item) = stream.message().await? {
        match item.item {
            Some(rpc::watch_item::Item::Volume(volume)) => {
                show_change("volume", &VolumeView::from(volume), output)?;
            }
            Some(rpc::watch_item::Item::Snapshot(snapshot)) => {
                show_change("snapshot", &SnapshotView::from(snapshot), output)?;
            }
            Some(rpc::watch_item::Item::Node(node)) => {
                show_change("node", &NodeView::from(node), output)?;
            }
            Some(rpc::watch_item::Item::Event(event)) => {
                show_change("event", &EventView::from(event), output)?;
            }
            Some(rpc::watch_item::Item::Deleted(deleted)) => {
                println!("deleted  {}{}", deleted.volume_id, deleted.snapshot_id);
            }
            Some(rpc::watch_item::Item::CaughtUp(_)) => eprintln!("up to date; watching"),
            None => {}
        }
    }
    anyhow::bail!("the manager ended the stream; run the command again")
}

/// One line for each change: JSON, or the cells of its table row.
fn show_change<R: output::Row>(kind: &str, row: &R, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::json!({ "kind": kind, "item": row })),
        Output::Table => println!("{kind:8} {}", row.cells().join("  ")),
    }
    Ok(())
}

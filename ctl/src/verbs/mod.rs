//! The verbs: one call to the managers each, and its answer shown.

mod volume;

use ankole_proto::rpc::v1 as rpc;

use crate::cli::{ClusterCommand, EventCommand, ManagerArgs, NodeCommand, Output, SnapshotCommand};
use crate::managers::{Managers, request_id};
use crate::output;
use crate::view::{ClusterView, EventView, NodeView, SnapshotUsage, SnapshotView, VolumeView};

use volume::show_volume;
pub(crate) use volume::volume;

/// Makes one call, going from manager to manager while none answers.
macro_rules! ask {
    ($managers:expr, $call:ident, $request:expr) => {{
        let request = $request;
        $managers
            .call(|mut admin| {
                let request = request.clone();
                async move { admin.$call(request).await }
            })
            .await?
    }};
}
use ask;

fn show_deleted(what: &str, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => output::json(&serde_json::json!({ "deleted": what })),
        Output::Table => output::line(format_args!("{what} deleted")),
    }
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
            let snapshot = ask!(managers, create_snapshot, request);
            show_snapshot(snapshot, output)
        }
        SnapshotCommand::CreateGroup { name, volumes } => {
            let request = rpc::CreateSnapshotGroupRequest {
                volumes,
                name,
                request_id,
            };
            let answer = ask!(managers, create_snapshot_group, request);
            show_snapshots(answer, &SnapshotUsage::default(), output)
        }
        SnapshotCommand::List { volume } => {
            let known = usage(&mut managers, volume.clone()).await?;
            let request = rpc::ListSnapshotsRequest {
                volume: volume.unwrap_or_default(),
            };
            let answer = ask!(managers, list_snapshots, request);
            show_snapshots(answer, &known, output)
        }
        SnapshotCommand::Revert { volume, snapshot } => {
            let request = rpc::RevertVolumeRequest {
                volume,
                snapshot,
                request_id,
            };
            let volume = ask!(managers, revert_volume, request);
            show_volume(volume, output)
        }
        SnapshotCommand::Delete { volume, snapshot } => {
            let request = rpc::DeleteSnapshotRequest {
                volume,
                snapshot,
                request_id,
            };
            ask!(managers, delete_snapshot, request.clone());
            {
                let what = format!("snapshot {} of volume {}", request.snapshot, request.volume);
                show_deleted(&what, output)
            }
        }
    }
}

/// What the snapshots of a volume take, or of all.
async fn usage(managers: &mut Managers, volume: Option<String>) -> anyhow::Result<SnapshotUsage> {
    let volumes = match volume {
        Some(volume) => vec![ask!(managers, get_volume, rpc::GetVolumeRequest { volume })],
        None => ask!(managers, list_volumes, rpc::ListVolumesRequest {}).volumes,
    };
    let volumes: Vec<VolumeView> = volumes.into_iter().map(VolumeView::from).collect();
    Ok(SnapshotUsage::of(&volumes))
}

fn show_snapshots(
    answer: rpc::ListSnapshotsResponse,
    known: &SnapshotUsage,
    output: Output,
) -> anyhow::Result<()> {
    let snapshots: Vec<SnapshotView> = answer
        .snapshots
        .into_iter()
        .map(|one| SnapshotView::from(one).with_usage(known))
        .collect();
    output::list(&snapshots, output)
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
            let node = ask!(managers, get_node, request);
            let node = NodeView::from(node);
            if output == Output::Json {
                return output::json(&node);
            }
            output::line(output::table(std::slice::from_ref(&node)))?;
            output::line("")?;
            output::list(&node.disks, output)
        }
    }
}

/// All nodes.
pub(crate) async fn nodes(managers: &mut Managers) -> anyhow::Result<Vec<NodeView>> {
    let answer = ask!(managers, list_nodes, rpc::ListNodesRequest {});
    Ok(answer.nodes.into_iter().map(NodeView::from).collect())
}

/// The managers and who leads them.
pub(crate) async fn cluster_view(managers: &mut Managers) -> anyhow::Result<ClusterView> {
    let answer = ask!(managers, get_cluster, rpc::GetClusterRequest {});
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
    output::line(cluster.heading())?;
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
            let answer = ask!(managers, list_events, request);
            let events: Vec<EventView> = answer.events.into_iter().map(EventView::from).collect();
            output::list(&events, output)
        }
        EventCommand::Watch => watch(&mut managers, output).await,
    }
}

async fn watch(managers: &mut Managers, output: Output) -> anyhow::Result<()> {
    let mut stream = ask!(managers, watch, rpc::WatchRequest {});
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
                let (kind, id) = if deleted.volume_id.is_empty() {
                    ("snapshot", deleted.snapshot_id)
                } else {
                    ("volume", deleted.volume_id)
                };
                show_deleted(&format!("{kind} {id}"), output)?;
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
        Output::Json => output::line(serde_json::json!({ "kind": kind, "item": row })),
        Output::Table => output::line(format_args!("{kind:8} {}", row.cells().join("  "))),
    }
}

//! Nodes as they are told.

use std::collections::BTreeSet;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{DiskId, NodeName};

use super::moment;
use crate::reconcile::{Liveness, Now, Observed, agent_alive, liveness};
use crate::state::State;

/// Every node that reports or is on record, by name.
pub(in crate::api) fn nodes(state: &State, observed: &Observed, now: Now) -> Vec<rpc::Node> {
    let reporting = observed.blockds.keys().chain(observed.agents.keys());
    let names: BTreeSet<&NodeName> = state.nodes().keys().chain(reporting).collect();
    names
        .into_iter()
        .map(|name| node(state, observed, now, name))
        .collect()
}

fn node(state: &State, observed: &Observed, now: Now, name: &NodeName) -> rpc::Node {
    let record = state.nodes().get(name);
    let (blockd, agent) = (observed.blockds.get(name), observed.agents.get(name));
    let last = blockd
        .map(|seen| seen.at)
        .into_iter()
        .chain(agent.map(|seen| seen.at));
    let last_heartbeat_ms = last.map(|at| at.wall_ms).max().unwrap_or(0);
    let live = liveness(state, observed, now, name);
    let has_agent = agent.is_some() || record.is_some_and(|node| node.has_agent);
    let (node_state, message) = match live {
        Liveness::Up => (
            rpc::NodeState::Up,
            agent_message(observed, now, name, has_agent),
        ),
        Liveness::Down { .. } if last_heartbeat_ms > 0 => {
            let at = moment(last_heartbeat_ms);
            (
                rpc::NodeState::Down,
                format!("has not reported since {at}; see whether it runs"),
            )
        }
        Liveness::Down { silent_ms } => {
            let text = format!(
                "has not reported for {} s; see whether it runs",
                silent_ms / 1000
            );
            (rpc::NodeState::Down, text)
        }
        Liveness::Unknown => (
            rpc::NodeState::Unknown,
            "has not reported to the new leader yet".to_owned(),
        ),
    };
    rpc::Node {
        name: name.to_string(),
        state: node_state.into(),
        message,
        has_blockd: blockd.is_some() || record.is_some_and(|node| node.has_blockd),
        has_agent,
        disks: disks(state, observed, name),
        last_heartbeat_ms,
        zone: record.map(|node| node.zone.clone()).unwrap_or_default(),
        engines: agent.map_or(0, |seen| {
            u32::try_from(seen.said.engines.len()).unwrap_or(u32::MAX)
        }),
        block_address: blockd
            .map(|seen| seen.said.block_address.clone())
            .or_else(|| record.map(|node| node.block_address.clone()))
            .unwrap_or_default(),
        rebuild_bytes_per_second: record.map_or(0, |node| node.rebuild_bytes_per_second),
    }
}

fn agent_message(observed: &Observed, now: Now, name: &NodeName, has_agent: bool) -> String {
    match agent_alive(observed, now, name) {
        Liveness::Down { silent_ms } if has_agent => {
            format!("its agent has not reported for {} s", silent_ms / 1000)
        }
        _ => String::new(),
    }
}

fn disks(state: &State, observed: &Observed, name: &NodeName) -> Vec<rpc::Disk> {
    let seen = observed.blockds.get(name).map(|seen| &seen.said.disks);
    let record = state.nodes().get(name).map(|node| &node.disks);
    let mut ids: BTreeSet<DiskId> = record
        .into_iter()
        .flat_map(|disks| disks.keys().copied())
        .collect();
    ids.extend(seen.into_iter().flat_map(|disks| disks.keys().copied()));
    ids.into_iter()
        .map(|id| {
            let live = seen.and_then(|disks| disks.get(&id));
            let known = record.and_then(|disks| disks.get(&id));
            let gone = live.is_none() && seen.is_some();
            let fault = if gone {
                "its blockd does not list it any more"
            } else {
                ""
            };
            rpc::Disk {
                id: id.to_string(),
                node: name.to_string(),
                path: live
                    .map(|disk| disk.path.clone())
                    .or_else(|| known.map(|disk| disk.path.clone()))
                    .unwrap_or_default(),
                capacity_bytes: live
                    .map(|disk| disk.capacity_bytes)
                    .or_else(|| known.map(|disk| disk.capacity_bytes))
                    .unwrap_or(0),
                free_bytes: live.map_or(0, |disk| disk.free_bytes),
                replicas: replicas_on(state, name, id),
                fault: live.map_or_else(|| fault.to_owned(), |disk| disk.fault.clone()),
                warning: live.map(|disk| disk.warning.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

fn replicas_on(state: &State, node: &NodeName, disk: DiskId) -> u32 {
    let replicas = state
        .volumes()
        .values()
        .flat_map(|volume| volume.replicas.values());
    let count = replicas
        .filter(|one| one.node == *node && one.disk == disk)
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Tick;

    #[test]
    fn what_a_blockd_says_of_its_disks_is_told() {
        let mut observed = Observed::default();
        let now = Now {
            tick: Tick(1),
            wall_ms: 1_700_000_000_000,
        };
        let report = rpc::BlockdReport {
            node: "n1".into(),
            block_address: "127.0.0.1:4100".into(),
            disks: vec![rpc::DiskReport {
                id: format!("{:032x}", 7),
                path: "/data".into(),
                warning: "filling up".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        observed.blockd(now, &report).unwrap();
        let told = nodes(&State::default(), &observed, now);
        let disk = &told[0].disks[0];
        assert_eq!((&*disk.path, &*disk.fault), ("/data", ""));
        assert_eq!(disk.warning, "filling up");
    }
}

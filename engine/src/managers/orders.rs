//! From the managers' messages to the mirror's orders: everything is checked here, once.

use std::net::{AddrParseError, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use ankole_proto::id::ParseIdError;
use ankole_proto::rpc::v1;
use ankole_proto::{
    BlockNumber, Credential, Epoch, LayerId, NodeName, ReplicaAddress, ReplicaId, VolumeSize,
    geometry::VolumeSizeError,
};

use bytes::Bytes;

use super::Settings;
use crate::mirror::event::{Damage, GroupStage, Member, Orders, Role, Task, TaskId, TaskKind};

/// The managers' orders, and what of them only the target needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeOrders {
    /// For the mirror.
    pub orders: Orders,
    /// The volume's name, for messages.
    pub name: String,
    /// The target's iSCSI qualified name.
    pub iqn: String,
    /// When a write is durable, who may log in.
    pub settings: Settings,
    /// The reservations that an engine told of last; empty: none ever did.
    pub reservations: Bytes,
}

/// Why an answer of the managers cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrdersError {
    /// Not an id, or not a node's name.
    #[error("{field} of the managers' orders: {source}")]
    Id {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        source: ParseIdError,
    },
    /// Not a size.
    #[error("the managers' orders: {0}")]
    Size(#[from] VolumeSizeError),
    /// Not 32 bytes.
    #[error("the managers' orders carry a credential of {0} bytes instead of 32")]
    Credential(usize),
    /// Not where a blockd can be reached.
    #[error(
        "the managers' orders: {text:?} is not an address for replica {replica} ({source}); \
         its blockd must advertise an IP address and a port"
    )]
    Address {
        /// Whose.
        replica: ReplicaId,
        /// As it came.
        text: String,
        /// What is wrong with it.
        source: AddrParseError,
    },
    /// Neither in sync nor rebuilding.
    #[error("the managers' orders: replica {replica} is in mode {mode}, which an engine ignores")]
    Mode {
        /// Whose.
        replica: ReplicaId,
        /// As it came.
        mode: i32,
    },
    /// Half of what CHAP needs, or nothing of it.
    #[error("the managers' orders ask for CHAP without a user or a secret: set it anew")]
    Chap,
    /// A kind of task that this engine does not know.
    #[error("task {0} is of a kind that this engine does not know: update the engine")]
    Task(u64),
}

impl TryFrom<v1::EngineOrders> for VolumeOrders {
    type Error = OrdersError;

    fn try_from(message: v1::EngineOrders) -> Result<Self, OrdersError> {
        let settings = Settings::from_orders(&message)?;
        let credential = Credential::from_slice(&message.credential)
            .ok_or(OrdersError::Credential(message.credential.len()))?;
        let orders = Orders {
            revision: message.revision,
            volume: id("volume_id", &message.volume_id)?,
            epoch: Epoch::from_raw(message.epoch),
            size: VolumeSize::from_bytes(message.size_bytes)?,
            head: id("head_layer", &message.head_layer)?,
            replicas: message
                .replicas
                .into_iter()
                .map(member)
                .collect::<Result<_, _>>()?,
            credential,
            tasks: message
                .tasks
                .into_iter()
                .map(task)
                .collect::<Result<_, _>>()?,
            comparison: message.comparison_request,
        };
        Ok(Self {
            orders,
            name: message.volume_name,
            iqn: message.iqn,
            settings,
            reservations: message.reservations.into(),
        })
    }
}

fn id<T>(field: &'static str, text: &str) -> Result<T, OrdersError>
where
    T: std::str::FromStr<Err = ParseIdError>,
{
    text.parse()
        .map_err(|source| OrdersError::Id { field, source })
}

fn member(message: v1::ReplicaOfVolume) -> Result<Member, OrdersError> {
    let replica = id("replica id", &message.id)?;
    let node: NodeName = id("replica node", &message.node)?;
    let role = match message.mode() {
        v1::ReplicaMode::InSync => Role::InSync,
        v1::ReplicaMode::Rebuilding => Role::Rebuilding,
        _ => {
            return Err(OrdersError::Mode {
                replica,
                mode: message.mode,
            });
        }
    };
    Ok(Member {
        replica,
        node,
        independent: message.independent,
        address: address(replica, message.address, message.socket)?,
        role,
        damages: message
            .damages
            .into_iter()
            .map(damage)
            .collect::<Result<_, _>>()?,
        rebuild_bytes_per_second: NonZeroU64::new(message.rebuild_bytes_per_second),
    })
}

fn damage(message: v1::Damage) -> Result<Damage, OrdersError> {
    Ok(Damage {
        layer: id("layer of a damage", &message.layer)?,
        block: BlockNumber::at(message.offset),
    })
}

fn address(
    replica: ReplicaId,
    text: String,
    socket: String,
) -> Result<Option<ReplicaAddress>, OrdersError> {
    if text.is_empty() {
        return Ok(None);
    }
    let tcp: SocketAddr = text.parse().map_err(|source| OrdersError::Address {
        replica,
        text,
        source,
    })?;
    let unix = (!socket.is_empty()).then(|| PathBuf::from(socket));
    Ok(Some(ReplicaAddress { tcp, unix }))
}

fn task(message: v1::EngineTask) -> Result<Task, OrdersError> {
    use v1::engine_task::Task as Kind;
    let kind = match message.task.ok_or(OrdersError::Task(message.id))? {
        Kind::Seal(seal) => TaskKind::Seal {
            snapshot: id("snapshot_id", &seal.snapshot_id)?,
            head: id("head_layer of a seal", &seal.head_layer)?,
            new_head: id::<LayerId>("new_head_layer of a seal", &seal.new_head_layer)?,
            group: seal
                .group
                .map(|group| group_stage(message.id, group))
                .transpose()?,
        },
        Kind::Revert(revert) => TaskKind::Revert {
            to: id("to_layer of a revert", &revert.to_layer)?,
            new_head: id("new_head_layer of a revert", &revert.new_head_layer)?,
        },
        Kind::Expand(expand) => TaskKind::Expand {
            size: VolumeSize::from_bytes(expand.size_bytes)?,
        },
    };
    Ok(Task {
        id: TaskId(message.id),
        kind,
    })
}

fn group_stage(task: u64, group: v1::GroupSeal) -> Result<GroupStage, OrdersError> {
    match group.stage() {
        v1::GroupStage::Hold => Ok(GroupStage::Hold),
        v1::GroupStage::Release => Ok(GroupStage::Release),
        v1::GroupStage::Unspecified => Err(OrdersError::Task(task)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> v1::EngineOrders {
        v1::EngineOrders {
            revision: 3,
            volume_id: format!("{:032x}", 1),
            epoch: 4,
            size_bytes: 1 << 20,
            head_layer: format!("{:016x}", 5),
            replicas: vec![v1::ReplicaOfVolume {
                id: format!("{:032x}", 2),
                node: "a".to_owned(),
                address: "127.0.0.1:9700".to_owned(),
                socket: "/run/block".to_owned(),
                mode: v1::ReplicaMode::InSync.into(),
                rebuild_bytes_per_second: 5 << 20,
                ..Default::default()
            }],
            credential: vec![7; 32],
            tasks: vec![v1::EngineTask {
                id: 9,
                task: Some(v1::engine_task::Task::Seal(v1::SealTask {
                    snapshot_id: format!("{:032x}", 6),
                    head_layer: format!("{:016x}", 5),
                    new_head_layer: format!("{:016x}", 6),
                    ..Default::default()
                })),
            }],
            volume_name: "data".to_owned(),
            iqn: "iqn.2026-01.example:data".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn complete_orders_are_understood() {
        let taken = VolumeOrders::try_from(message()).unwrap();
        assert_eq!(taken.name, "data");
        assert_eq!(taken.iqn, "iqn.2026-01.example:data");
        let orders = taken.orders;
        assert_eq!(orders.epoch, Epoch::from_raw(4));
        assert_eq!(orders.replicas[0].role, Role::InSync);
        let rate = orders.replicas[0].rebuild_bytes_per_second;
        assert_eq!(rate, NonZeroU64::new(5 << 20));
        let address = orders.replicas[0].address.as_ref().unwrap();
        assert_eq!(address.tcp.port(), 9700);
        assert_eq!(address.unix.as_deref(), Some("/run/block".as_ref()));
        assert_eq!(orders.tasks[0].id, TaskId(9));
        assert!(matches!(
            orders.tasks[0].kind,
            TaskKind::Seal { group: None, .. }
        ));
    }

    #[test]
    fn damages_groups_and_expansions_are_understood() {
        let mut message = message();
        message.replicas[0].damages = vec![v1::Damage {
            layer: format!("{:016x}", 5),
            offset: 8192,
            ..v1::Damage::default()
        }];
        let Some(v1::engine_task::Task::Seal(seal)) = &mut message.tasks[0].task else {
            panic!("the first task is a seal");
        };
        seal.group = Some(v1::GroupSeal {
            group_id: "g".to_owned(),
            stage: v1::GroupStage::Hold.into(),
        });
        message.tasks.push(v1::EngineTask {
            id: 10,
            task: Some(v1::engine_task::Task::Expand(v1::ExpandTask {
                size_bytes: 2 << 20,
            })),
        });
        let orders = VolumeOrders::try_from(message).unwrap().orders;
        let damage = orders.replicas[0].damages[0];
        assert_eq!((damage.layer.raw(), damage.block.raw()), (5, 2));
        let held = Some(GroupStage::Hold);
        assert!(matches!(orders.tasks[0].kind, TaskKind::Seal { group, .. } if group == held));
        let size = VolumeSize::from_bytes(2 << 20).unwrap();
        assert_eq!(orders.tasks[1].kind, TaskKind::Expand { size });
    }

    #[test]
    fn a_replica_whose_blockd_has_not_reported_has_no_address() {
        let mut orders = message();
        orders.replicas[0].address.clear();
        let taken = VolumeOrders::try_from(orders).unwrap();
        assert_eq!(taken.orders.replicas[0].address, None);
    }

    #[test]
    fn every_bad_field_is_named() {
        type Damage = fn(&mut v1::EngineOrders);
        let damages: [(Damage, &str); 9] = [
            (|m| m.volume_id.clear(), "volume_id"),
            (|m| m.head_layer = "0".repeat(16), "head_layer"),
            (|m| m.size_bytes = 1, "not a volume size"),
            (|m| m.credential.truncate(31), "31 bytes"),
            (|m| m.replicas[0].node = "A b".to_owned(), "replica node"),
            (|m| m.replicas[0].address = "a:b".to_owned(), "advertise"),
            (|m| m.replicas[0].mode = 99, "mode 99"),
            (|m| m.tasks[0].task = None, "task 9"),
            (|m| m.replicas[0].id = "x".to_owned(), "replica id"),
        ];
        for (damage, named) in damages {
            let mut damaged = message();
            damage(&mut damaged);
            let error = VolumeOrders::try_from(damaged).unwrap_err().to_string();
            assert!(error.contains(named), "{error} does not name {named}");
        }
    }
}

//! An iSCSI target whose volume is memory: for conformance suites and measurements of the target
//! alone, without a cluster.
//!
//! ```text
//! cargo run --release -p ankole-engine --example memory_target -- --port 3260 --mib 256
//! iscsi-test-cu --dataloss -t ALL.Read10 iscsi://127.0.0.1:3260/iqn.2026-01.io.ankole:memory/0
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use ankole_engine::iscsi::login::{Chap, Credentials, IscsiName, Secret, Target};
use ankole_engine::iscsi::portal::{Completion, Portal, ReservationKeeper, Volume};
use ankole_engine::scsi::{Identity, LogicalUnit};
use ankole_engine::volume::{Failure, Operation, Outcome};
use ankole_proto::{Extent, VolumeId, VolumeSize};
use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Serve a volume in memory over iSCSI.
#[derive(Parser)]
struct Arguments {
    /// Listen on this address of the loopback.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Listen here; 0 chooses a free port.
    #[arg(long, default_value_t = 3260)]
    port: u16,
    /// Listen on this port besides, for suites that want two paths.
    #[arg(long)]
    second_port: Option<u16>,
    /// The volume's size.
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// The target's name.
    #[arg(long, default_value = "iqn.2026-01.io.ankole:memory")]
    name: String,
    /// Demand CHAP: `name:secret`.
    #[arg(long)]
    chap: Option<String>,
    /// Prove ourselves when asked: `name:secret`.
    #[arg(long, requires = "chap")]
    mutual: Option<String>,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, serve(Arguments::parse()))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let size = VolumeSize::from_bytes(arguments.mib << 20)?;
    let listener = TcpListener::bind((arguments.host.as_str(), arguments.port)).await?;
    let address = listener.local_addr()?;
    let chap = arguments.chap.as_deref().map(credentials).transpose()?;
    let mutual = arguments.mutual.as_deref().map(credentials).transpose()?;
    let target = Target {
        name: IscsiName::parse(&arguments.name)?,
        alias: "memory".to_owned(),
        address: address.to_string(),
        chap: chap.map(|initiator| Chap {
            initiator,
            target: mutual,
        }),
    };
    let identity = Identity::new(VolumeId::from_bits(1), &arguments.name, *b"0001");
    let unit = Rc::new(RefCell::new(LogicalUnit::new(identity, size, true)));
    let memory = Rc::new(Memory::new(size)?);
    let portal = Portal::new(target, unit, memory.clone(), memory);
    println!("iscsi://{address}/{}/0", arguments.name);
    if let Some(port) = arguments.second_port {
        let second = TcpListener::bind((arguments.host.as_str(), port)).await?;
        let portal = portal.clone();
        tokio::task::spawn_local(async move { portal.serve(second).await });
    }
    portal.serve(listener).await;
    Ok(())
}

fn credentials(text: &str) -> anyhow::Result<Credentials> {
    let (name, secret) = text
        .split_once(':')
        .context("write credentials as name:secret")?;
    Ok(Credentials {
        name: name.to_owned(),
        secret: Secret::new(secret),
    })
}

/// The volume: answers at once.
struct Memory(RefCell<Vec<u8>>);

impl Memory {
    fn new(size: VolumeSize) -> anyhow::Result<Self> {
        Ok(Self(RefCell::new(vec![0; usize::try_from(size.bytes())?])))
    }

    fn carry_out(&self, operation: Operation) -> Option<Outcome> {
        let mut bytes = self.0.borrow_mut();
        let bytes = bytes.as_mut_slice();
        match operation {
            Operation::Read { extent } => {
                return Some(Outcome::Done(Bytes::copy_from_slice(at(bytes, extent)?)));
            }
            Operation::Write { extent, data, .. } => at(bytes, extent)?.copy_from_slice(&data),
            Operation::Unmap { extent } | Operation::WriteZeroes { extent, .. } => {
                at(bytes, extent)?.fill(0);
            }
            Operation::CompareAndWrite {
                extent,
                expected,
                data,
                ..
            } => {
                let held = at(bytes, extent)?;
                let first = held
                    .iter()
                    .zip(&expected)
                    .position(|(held, wanted)| held != wanted);
                if let Some(first) = first {
                    let first_difference = first as u64;
                    return Some(Outcome::Miscompare { first_difference });
                }
                held.copy_from_slice(&data);
            }
            Operation::Or { extent, data, .. } => {
                for (held, more) in at(bytes, extent)?.iter_mut().zip(&data) {
                    *held |= more;
                }
            }
            Operation::Copy { from, to, .. } => {
                let source = at(bytes, from)?.to_vec();
                at(bytes, to)?.copy_from_slice(&source);
            }
            Operation::Flush => {}
        }
        Some(Outcome::Done(Bytes::new()))
    }
}

fn at(bytes: &mut [u8], extent: Extent) -> Option<&mut [u8]> {
    let start = usize::try_from(extent.offset()).ok()?;
    bytes.get_mut(start..usize::try_from(extent.end()).ok()?)
}

impl Volume for Memory {
    fn submit(&self, operation: Operation, completion: Completion) {
        let outcome = self.carry_out(operation);
        completion.complete(outcome.unwrap_or(Outcome::Failed(Failure::Unreadable)));
    }
}

impl ReservationKeeper for Memory {
    /// Memory is gone after a restart anyway, reservations and all.
    fn keep(&self, _: Bytes, kept: Completion) {
        kept.complete(Outcome::Done(Bytes::new()));
    }
}

//! Snapshots of the pair at one moment, while its engines are killed.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::field::Field;
use super::pair::PAIR;
use super::strike::now_ms;
use crate::cluster::{Cluster, Snapshot};

const GROUPS_MAX: usize = 3;
/// For the next engines to complete the group or give it up.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Asks for a group and kills both engines so long afterwards. The call may be refused; but then
/// nothing of the group stays, and otherwise all of it.
pub(super) fn take_and_kill(field: &Field<'_>, after: Duration) -> anyhow::Result<()> {
    let cluster = field.cluster;
    make_room(cluster)?;
    let name = format!("g{}", now_ms());
    let engines = [field.engine(PAIR[0])?, field.engine(PAIR[1])?];
    std::thread::scope(|scope| {
        let asked =
            scope.spawn(|| cluster.ankole(&["snapshot", "create-group", &name, PAIR[0], PAIR[1]]));
        std::thread::sleep(after);
        let killed = engines.iter().try_for_each(|engine| cluster.kill(engine));
        let answer = asked.join().ok().context("the thread ended")?;
        killed?;
        let taken = settled(cluster, &name)?;
        ensure!(
            taken || answer.is_err(),
            "the group {name} was promised, and is not there"
        );
        Ok(())
    })
}

/// The groups of which every snapshot can be used: name and layers.
pub(super) fn ready(cluster: &Cluster) -> anyhow::Result<Vec<(String, [String; 2])>> {
    let (first, second) = (cluster.snapshots(PAIR[0])?, cluster.snapshots(PAIR[1])?);
    let layer = |of: &[Snapshot], name: &str| {
        let found = of
            .iter()
            .find(|one| one.name == name && one.state == "ready");
        found.map(|one| one.layer.clone())
    };
    let both = first.iter().filter_map(|one| {
        let layers = [layer(&first, &one.name)?, layer(&second, &one.name)?];
        Some((one.name.clone(), layers))
    });
    Ok(both.collect())
}

fn make_room(cluster: &Cluster) -> anyhow::Result<()> {
    let groups = ready(cluster)?;
    if let [(oldest, _), ..] = groups.as_slice()
        && groups.len() >= GROUPS_MAX
    {
        for volume in PAIR {
            cluster.ankole(&["snapshot", "delete", volume, oldest])?;
        }
    }
    Ok(())
}

/// Whether the group is there, once that will not change any more.
fn settled(cluster: &Cluster, name: &str) -> anyhow::Result<bool> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let mut states = Vec::new();
        for volume in PAIR {
            let snapshots = cluster.snapshots(volume)?;
            let found = snapshots.into_iter().find(|one| one.name == name);
            states.push(found.map(|one| one.state));
        }
        if states.iter().all(Option::is_none) {
            return Ok(false);
        }
        if states.iter().all(|state| state.as_deref() == Some("ready")) {
            return Ok(true);
        }
        let late = Instant::now() >= deadline;
        ensure!(!late, "the group {name} stays in between: {states:?}");
        std::thread::sleep(POLL);
    }
}

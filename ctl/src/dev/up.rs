//! Starting what does not run, and waiting until the cluster works.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::layout::Layout;
use super::process;
use crate::managers::Managers;
use crate::verbs;
use crate::view::NodeView;

/// Elections and first heartbeats take a few seconds on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn up(layout: &Layout) -> anyhow::Result<()> {
    let running = process::running(layout)?;
    for daemon in layout.daemons() {
        if running.iter().any(|process| process.is(&daemon)) {
            continue;
        }
        eprintln!("starting {}", daemon.name);
        process::start(layout, &daemon)?;
    }
    wait_ready(layout).await
}

async fn wait_ready(layout: &Layout) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let missing = not_ready(layout).await?;
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(dead) = dead_daemon(layout)? {
            bail!(
                "{dead} ended at once; see {}",
                layout.data(&dead).join("log").display()
            );
        }
        if Instant::now() >= deadline {
            bail!(
                "not ready after {} s: {missing}; see the logs in {}",
                READY_LIMIT.as_secs(),
                layout.directory.display()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn dead_daemon(layout: &Layout) -> anyhow::Result<Option<String>> {
    let running = process::running(layout)?;
    let dead = layout
        .daemons()
        .into_iter()
        .find(|daemon| !running.iter().any(|now| now.is(daemon)));
    Ok(dead.map(|daemon| daemon.name))
}

/// What is still missing, in words; empty when the cluster works.
async fn not_ready(layout: &Layout) -> anyhow::Result<String> {
    let mut managers = Managers::at(layout.managers(), Duration::from_secs(5));
    let nodes = match verbs::nodes(&mut managers).await {
        Ok(nodes) => nodes,
        Err(error) => return Ok(format!("the managers do not answer ({error:#})")),
    };
    let waiting: Vec<String> = layout
        .nodes()
        .into_iter()
        .filter(|name| {
            let stores = |node: &NodeView| node.name() == *name && node.is_up() && node.can_store();
            !nodes.iter().any(stores)
        })
        .collect();
    let silent: Vec<String> = layout
        .agent_nodes()
        .into_iter()
        .filter(|name| {
            let serves = |node: &NodeView| node.name() == *name && node.has_agent();
            !nodes.iter().any(serves)
        })
        .collect();
    Ok(match (waiting.is_empty(), silent.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!("the agents on {} have not reported", silent.join(", ")),
        (false, _) => format!("nodes {} have not reported", waiting.join(", ")),
    })
}

//! The demo: a replicated volume keeps every byte while its parts are killed.
//!
//! Everything goes through real processes and a real initiator. Each step prints what it did; the
//! first thing that is not as it must be ends the demo with an error, and leaves the cluster's
//! folder for a look.

pub(crate) mod digest;
mod image;
mod steps;

use std::path::Path;
use std::time::Instant;

use crate::cluster::{Cluster, Scratch};

/// Apart from the ports of an operator's own dev cluster.
const BASE_PORT: u16 = 17_000;

/// Prints a step's account with the time since the start.
pub(crate) struct Account {
    start: Instant,
}

impl Account {
    fn say(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64());
    }
}

/// Runs the demo in this folder, or in a new one.
pub fn run(directory: Option<&Path>) -> anyhow::Result<()> {
    let mut folder = match directory {
        Some(path) => Scratch::kept(path)?,
        None => Scratch::new("demo")?,
    };
    let account = Account {
        start: Instant::now(),
    };
    let cluster_folder = folder.path().join("cluster");
    let cluster = match Cluster::up(&cluster_folder, BASE_PORT) {
        Ok(cluster) => cluster,
        Err(error) => {
            folder.keep();
            return Err(error);
        }
    };
    account.say("the cluster is up: 3 managers, 3 blockds, 1 agent");
    let shown = steps::show(&cluster, folder.path(), &account);
    if shown.is_err() {
        folder.keep();
        eprintln!(
            "the cluster's data and logs stay in {}",
            cluster_folder.display()
        );
        cluster.down()?;
        return shown;
    }
    cluster.destroy()?;
    account.say("every process stopped, the data removed: everything was as it must be");
    Ok(())
}

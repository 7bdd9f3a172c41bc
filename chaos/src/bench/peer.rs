//! Stock `tgt` serving a plain file: the yardstick.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cluster::run;

const PORTAL: &str = "127.0.0.1:17690";
const IQN: &str = "iqn.2026-01.io.ankole.chaos:peer";
/// tgt's control socket: apart from that of a tgt that runs as a service.
const CONTROL: &str = "17690";
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running tgtd with one unit.
pub(super) struct Peer {
    child: Child,
    url: String,
}

impl Peer {
    /// Starts tgtd on a file of this size.
    pub(super) fn start(file: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::File::create(file)?.set_len(bytes)?;
        let child = Command::new("tgtd")
            .args(["-f", "-C", CONTROL, "--iscsi", &format!("portal={PORTAL}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run tgtd (package tgt)")?;
        // From here on dropping the peer ends the child.
        let peer = Self {
            child,
            url: format!("iscsi://{PORTAL}/{IQN}/1"),
        };
        peer.define(file)?;
        Ok(peer)
    }

    fn define(&self, file: &Path) -> anyhow::Result<()> {
        let path = file.display().to_string();
        let target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", IQN];
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = admin(&target) {
            if Instant::now() >= deadline {
                bail!("tgtd does not answer: {error:#}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let unit = [
            "--op",
            "new",
            "--mode",
            "logicalunit",
            "--tid",
            "1",
            "--lun",
            "1",
            "-b",
            &path,
        ];
        admin(&unit)?;
        admin(&[
            "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL",
        ])
    }

    pub(super) fn url(&self) -> &String {
        &self.url
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(-1)
    }
}

fn admin(arguments: &[&str]) -> anyhow::Result<()> {
    let mut all = vec!["-C", CONTROL, "--lld", "iscsi"];
    all.extend(arguments);
    run("tgtadm", &all).map(drop)
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

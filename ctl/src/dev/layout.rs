//! Where a dev cluster's processes keep their data and listen.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::cli::DevPlace;

const DEFAULT_BASE_PORT: u16 = 7700;
const MANAGERS: u16 = 3;
const BLOCKDS: u16 = 3;
/// Ports for engines, shared out among the agents: so many volumes can be attached at once.
const ENGINE_PORTS: u16 = 100;
/// Ports of whoever forwards: of managers, blockds, the blockds' managers, the agents'.
const FORWARDED_PORTS: u16 = 39;
const AGENTS_DEFAULT: u16 = 1;
const FILE: &str = "dev.json";

/// A dev cluster: its folder and its ports.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) directory: PathBuf,
    base_port: u16,
    shape: Shape,
}

/// What a cluster is made of, fixed when it is first started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// The first port of whoever forwards to the processes' own ones, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forwarded_from: Option<u16>,
    /// How many nodes have an agent, if not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agents: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    base_port: u16,
    #[serde(flatten)]
    shape: Shape,
}

/// One process of the cluster, other than the engines, which its agent starts.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// `meta-1`, `blockd-n2`, `agent-n1`: also the folder of its log.
    pub(crate) name: String,
    /// The binary, which lies beside this one.
    pub(crate) binary: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) address: String,
}

impl Layout {
    /// The cluster in the place named, made known there when it is new.
    pub(crate) fn create(place: &DevPlace, shape: Shape) -> anyhow::Result<Self> {
        let directory = directory(place)?;
        if let Some(layout) = Self::read(&directory)? {
            return layout.check_port(place)?.check_shape(shape);
        }
        let layout = Self {
            directory,
            base_port: place.base_port.unwrap_or(DEFAULT_BASE_PORT),
            shape,
        };
        if let Some(port) = shape.forwarded_from
            && port.checked_add(FORWARDED_PORTS).is_none()
        {
            bail!(
                "--forwarded-from {port} leaves no room for {FORWARDED_PORTS} ports; use a lower one"
            );
        }
        if layout.base_port.checked_add(100 + ENGINE_PORTS).is_none() {
            bail!(
                "--base-port {} leaves no room for 200 ports; use a lower one",
                layout.base_port
            );
        }
        std::fs::create_dir_all(&layout.directory)
            .with_context(|| format!("cannot create {}", layout.directory.display()))?;
        layout.write()?;
        Ok(layout)
    }

    /// The cluster in the place named, which must exist.
    pub(crate) fn open(place: &DevPlace) -> anyhow::Result<Self> {
        let directory = directory(place)?;
        match Self::read(&directory)? {
            Some(layout) => layout.check_port(place),
            None => bail!(
                "there is no dev cluster in {}; start one with `ankole dev up`, or name its \
                 folder with --directory",
                directory.display()
            ),
        }
    }

    fn check_port(self, place: &DevPlace) -> anyhow::Result<Self> {
        match place.base_port {
            Some(port) if port != self.base_port => bail!(
                "the cluster in {} uses base port {}; leave --base-port out, or use another \
                 --directory",
                self.directory.display(),
                self.base_port
            ),
            _ => Ok(self),
        }
    }

    /// Processes know each other by these ports for good, and a node without an agent would be a
    /// node whose volumes nobody serves.
    fn check_shape(self, wanted: Shape) -> anyhow::Result<Self> {
        let Shape {
            forwarded_from,
            agents,
        } = wanted;
        if forwarded_from.is_some() && forwarded_from != self.shape.forwarded_from {
            let first = self.shape.forwarded_from.map_or_else(
                || "without --forwarded-from".to_owned(),
                |port| format!("with --forwarded-from {port}"),
            );
            bail!(
                "the cluster in {} was first started {first}; leave --forwarded-from out, or use \
                 another --directory",
                self.directory.display()
            );
        }
        if agents.is_some_and(|agents| agents != self.agents()) {
            bail!(
                "the cluster in {} has {} agents; leave --agents out, or use another --directory",
                self.directory.display(),
                self.agents()
            );
        }
        Ok(self)
    }

    fn agents(&self) -> u16 {
        self.shape.agents.unwrap_or(AGENTS_DEFAULT)
    }

    fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        let stored: Stored = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; restore or delete it", path.display()))?;
        if stored.format != 1 {
            bail!(
                "{} has format {}, this command knows 1",
                path.display(),
                stored.format
            );
        }
        Ok(Some(Self {
            directory: directory.to_owned(),
            base_port: stored.base_port,
            shape: stored.shape,
        }))
    }

    fn write(&self) -> anyhow::Result<()> {
        let path = self.directory.join(FILE);
        let aside = self.directory.join(format!("{FILE}.new"));
        let stored = Stored {
            format: 1,
            base_port: self.base_port,
            shape: self.shape,
        };
        std::fs::write(&aside, serde_json::to_vec_pretty(&stored)?)
            .and_then(|()| std::fs::rename(&aside, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn manager_port(&self, index: u16) -> u16 {
        self.base_port + index
    }

    fn blockd_port(&self, index: u16) -> u16 {
        self.base_port + 10 + index
    }

    /// What others are told: a port of the forwarder, or the process's own one.
    fn told(&self, forwarded: u16, own: u16) -> String {
        let port = self
            .shape
            .forwarded_from
            .map_or(own, |first| first.saturating_add(forwarded));
        format!("127.0.0.1:{port}")
    }

    /// Where the other managers find this one.
    fn advertised_manager(&self, index: u16) -> String {
        self.told(index, self.manager_port(index))
    }

    /// `HOST:PORT` of every manager.
    pub(crate) fn managers(&self) -> Vec<String> {
        (0..MANAGERS)
            .map(|index| format!("127.0.0.1:{}", self.manager_port(index)))
            .collect()
    }

    /// The names of the storage nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        (1..=BLOCKDS).map(|number| format!("n{number}")).collect()
    }

    /// The nodes that can serve volumes.
    pub(crate) fn agent_nodes(&self) -> Vec<String> {
        let nodes = self.nodes();
        let count = usize::from(self.agents()).min(nodes.len());
        nodes.into_iter().take(count).collect()
    }

    /// Every process in the order in which they start.
    pub(crate) fn daemons(&self) -> Vec<Daemon> {
        let mut daemons: Vec<Daemon> = (0..MANAGERS).map(|index| self.manager(index)).collect();
        daemons.extend((0..BLOCKDS).map(|index| self.blockd(index)));
        daemons.extend((0..self.agents()).map(|index| self.agent(index)));
        daemons
    }

    /// Where a process keeps its data.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn manager(&self, index: u16) -> Daemon {
        let name = format!("meta-{}", index + 1);
        let address = format!("127.0.0.1:{}", self.manager_port(index));
        let mut arguments = words(&["serve", "--bootstrap"]);
        arguments.extend(pair("--id", index + 1));
        arguments.extend(pair("--listen", &address));
        arguments.extend(pair("--advertise", self.advertised_manager(index)));
        arguments.extend(pair("--directory", self.data(&name).display()));
        for peer in 0..MANAGERS {
            let peer_address = self.advertised_manager(peer);
            arguments.extend(pair("--peer", format!("{}={peer_address}", peer + 1)));
        }
        Daemon {
            name,
            binary: "ankole-meta",
            arguments,
            address,
        }
    }

    fn blockd(&self, index: u16) -> Daemon {
        let node = format!("n{}", index + 1);
        let name = format!("blockd-{node}");
        let address = format!("127.0.0.1:{}", self.blockd_port(index));
        let data = self.data(&name);
        let mut arguments = words(&["serve"]);
        arguments.extend(pair("--node", &node));
        arguments.extend(pair("--disk", data.display()));
        arguments.extend(pair("--listen", &address));
        if self.shape.forwarded_from.is_some() {
            arguments.extend(pair("--advertise", self.told(10 + index, 0)));
        } else {
            arguments.extend(pair("--unix", data.join("block.sock").display()));
        }
        arguments.extend(self.manager_arguments(20 + MANAGERS * index));
        Daemon {
            name,
            binary: "ankole-blockd",
            arguments,
            address,
        }
    }

    fn agent(&self, index: u16) -> Daemon {
        let node = format!("n{}", index + 1);
        let name = format!("agent-{node}");
        let ports = ENGINE_PORTS / self.agents();
        let first = self.base_port + 100 + index * ports;
        let last = first + ports - 1;
        let mut arguments = words(&["agent", "--node", &node, "--engine-host", "127.0.0.1"]);
        arguments.extend(pair("--directory", self.data(&name).display()));
        arguments.extend(pair("--ports", format!("{first}-{last}")));
        arguments.extend(self.manager_arguments(30 + MANAGERS * index));
        Daemon {
            name,
            binary: "ankole-engine",
            arguments,
            address: String::new(),
        }
    }

    /// The managers as a daemon is told to find them: through ports of its own of the forwarder.
    fn manager_arguments(&self, forwarded: u16) -> Vec<String> {
        (0..MANAGERS)
            .map(|index| self.told(forwarded + index, self.manager_port(index)))
            .flat_map(|address| pair("--manager", address))
            .collect()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pair(flag: &str, value: impl std::fmt::Display) -> [String; 2] {
    [flag.to_owned(), value.to_string()]
}

/// The folder named, or the default one. Absolute, because it also identifies the processes.
fn directory(place: &DevPlace) -> anyhow::Result<PathBuf> {
    let directory = match &place.directory {
        Some(directory) => directory.clone(),
        None => default_directory()?,
    };
    std::path::absolute(&directory)
        .with_context(|| format!("{} is no folder's name", directory.display()))
}

fn default_directory() -> anyhow::Result<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.map(|data| data.join("ankole-dev"))
        .context("neither HOME nor XDG_DATA_HOME is set; name a folder with --directory")
}

/// The managers of the default dev cluster.
pub(crate) fn manager_addresses() -> anyhow::Result<Vec<String>> {
    let base_port =
        Layout::read(&default_directory()?)?.map_or(DEFAULT_BASE_PORT, |layout| layout.base_port);
    Ok(Layout {
        directory: PathBuf::new(),
        base_port,
        shape: Shape::default(),
    }
    .managers())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path, base_port: Option<u16>) -> DevPlace {
        DevPlace {
            directory: Some(directory.to_owned()),
            base_port,
        }
    }

    fn forwarded() -> Shape {
        Shape {
            forwarded_from: Some(9400),
            agents: Some(3),
        }
    }

    #[test]
    fn a_cluster_keeps_the_ports_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Layout::open(&place(folder.path(), None)).is_err());
        Layout::create(&place(folder.path(), Some(9000)), Shape::default()).unwrap();
        let again = Layout::create(&place(folder.path(), None), Shape::default()).unwrap();
        assert_eq!(again.managers()[0], "127.0.0.1:9000");
        assert!(Layout::create(&place(folder.path(), Some(9001)), Shape::default()).is_err());
        assert!(Layout::create(&place(folder.path(), None), forwarded()).is_err());
    }

    #[test]
    fn a_forwarded_cluster_tells_nobody_its_own_ports() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), Some(9000));
        Layout::create(&place, forwarded()).unwrap();
        let layout = Layout::create(&place, Shape::default()).unwrap();
        for daemon in layout.daemons() {
            let mut words = daemon.arguments.iter().peekable();
            while let Some(word) = words.next() {
                if ["--advertise", "--manager", "--peer"].contains(&word.as_str()) {
                    let told = words.peek().unwrap();
                    assert!(told.contains(":94"), "{word} {told}");
                }
                assert_ne!(word, "--unix");
            }
        }
    }

    #[test]
    fn each_agent_has_ports_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), Some(9000));
        let layout = Layout::create(&place, forwarded()).unwrap();
        assert_eq!(layout.agent_nodes(), ["n1", "n2", "n3"]);
        let daemons = layout.daemons();
        let ports: Vec<&str> = daemons
            .iter()
            .flat_map(|daemon| daemon.arguments.windows(2))
            .filter(|pair| pair[0] == "--ports")
            .map(|pair| pair[1].as_str())
            .collect();
        assert_eq!(ports, ["9100-9132", "9133-9165", "9166-9198"]);
        let fewer = Shape {
            agents: Some(2),
            ..forwarded()
        };
        assert!(Layout::create(&place, fewer).is_err());
    }

    #[test]
    fn a_base_port_without_room_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Layout::create(&place(folder.path(), Some(65_400)), Shape::default()).is_err());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        let error = Layout::open(&place(folder.path(), None)).unwrap_err();
        assert!(format!("{error:#}").contains("dev.json"), "{error:#}");
    }
}

//! One manager, with a state of texts, ordered about by lines on its standard input. Each is
//! answered by one line on standard error: "= ..." or "! ...".

use std::collections::BTreeMap;
use std::io::BufRead;

use ankole_meta::daemon::{ServeArguments, ServeOptions, serve};
use ankole_meta::raft::Managers;
use ankole_meta::state::{Changes, RecordError, Replicated};
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use clap::Parser;
use tokio::sync::Semaphore;
use tonic::service::Routes;

use super::PATIENCE;

pub(crate) const ARGUMENTS: &str = "ANKOLE_TEST_ARGUMENTS";
/// Proposals under way at once while filling.
const FILL_DEPTH: usize = 64;

/// A command's request id is "key=value".
#[derive(Default)]
struct Texts(BTreeMap<Vec<u8>, Vec<u8>>);

impl Replicated for Texts {
    fn apply(&mut self, index: u64, command: &LogCommand) -> (LogAnswer, Changes) {
        let (key, value) = command.request_id.split_once('=').unwrap_or_default();
        self.0.insert(key.into(), value.into());
        let answer = LogAnswer {
            revision: index,
            ..LogAnswer::default()
        };
        (answer, vec![(key.into(), Some(value.into()))])
    }

    fn from_records(
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecordError> {
        Ok(Self(records.collect()))
    }

    fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.clone().into_iter().collect()
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
}

#[test]
#[ignore = "the role of a child process: run by the other tests"]
fn child_serves_until_it_is_stopped() {
    let arguments = std::env::var(ARGUMENTS).expect("run by its parent");
    let arguments = Arguments::parse_from(arguments.split_whitespace());
    let options = ServeOptions::try_from(arguments.serve).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    let outcome = runtime.block_on(serve::<Texts, _>(options, |managers| {
        std::thread::spawn(move || {
            for order in std::io::stdin().lock().lines().map_while(Result::ok) {
                match handle.block_on(obey(&managers, &order)) {
                    Ok(answer) => eprintln!("= {answer}"),
                    Err(complaint) => eprintln!("! {complaint}"),
                }
            }
        });
        Routes::default()
    }));
    if let Err(error) = outcome {
        eprintln!("! {error}");
        std::process::exit(3);
    }
}

async fn propose(managers: &Managers<Texts>, text: &str) -> Result<u64, String> {
    let command = LogCommand {
        request_id: text.into(),
        ..LogCommand::default()
    };
    let answer = managers.propose(command).await;
    answer
        .map(|answer| answer.revision)
        .map_err(|error| error.to_string())
}

async fn leader_other_than(managers: &Managers<Texts>, not: u64) -> Result<String, String> {
    let mut leadership = managers.leadership();
    let found = leadership.wait_for(|now| {
        now.leader
            .as_ref()
            .is_some_and(|leader| leader.id.number() != not)
    });
    let found = tokio::time::timeout(PATIENCE, found).await;
    let found = found
        .map_err(|_| "no leader in time")?
        .map_err(|_| "ended")?;
    let leader = found.leader.as_ref().ok_or("no leader")?;
    Ok(leader.id.to_string())
}

async fn fill(managers: &Managers<Texts>, count: u64) -> Result<String, String> {
    let permits = std::sync::Arc::new(Semaphore::new(FILL_DEPTH));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let permit = permits.clone().acquire_owned().await.unwrap();
        let managers = managers.clone();
        tasks.spawn(async move {
            let done = propose(&managers, &format!("fill{number}=v{number}")).await;
            drop(permit);
            done
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap()?;
    }
    Ok(count.to_string())
}

async fn applied(managers: &Managers<Texts>, index: u64) -> Result<String, String> {
    let mut changed = managers.changed();
    let reached = tokio::time::timeout(PATIENCE, changed.wait_for(|now| *now >= index)).await;
    let reached = reached
        .map_err(|_| "not applied in time")?
        .map_err(|_| "ended")?;
    Ok(reached.to_string())
}

fn dump(managers: &Managers<Texts>) -> String {
    let records = managers.with_state(Replicated::to_records);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = records
        .iter()
        .map(|(key, value)| text(key) + "=" + &text(value));
    lines.collect::<Vec<_>>().join(" ")
}

async fn obey(managers: &Managers<Texts>, order: &str) -> Result<String, String> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let number = || rest.parse::<u64>().map_err(|error| error.to_string());
    let id = || rest.parse().map_err(|error| format!("{error}"));
    let refused = |error: ankole_meta::raft::MembershipError| error.to_string();
    match verb {
        "put" => propose(managers, rest).await.map(|index| index.to_string()),
        "leader" => leader_other_than(managers, number()?).await,
        "fill" => fill(managers, number()?).await,
        "read" => {
            managers.read().await.map_err(|error| error.to_string())?;
            Ok(managers.changed().borrow().to_string())
        }
        "applied" => applied(managers, number()?).await,
        "dump" => Ok(dump(managers)),
        "snapshot" => Ok(managers.status().snapshot.to_string()),
        "learner" => {
            let peer = rest.parse().map_err(|error| format!("{error}"))?;
            managers.add_learner(peer).await.map_err(refused)?;
            Ok(String::new())
        }
        "promote" => managers
            .promote(id()?)
            .await
            .map_err(refused)
            .map(|()| String::new()),
        "remove" => managers
            .remove(id()?)
            .await
            .map_err(refused)
            .map(|()| String::new()),
        other => Err(format!("unknown order {other}")),
    }
}

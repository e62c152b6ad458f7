//! `kill -9` at random moments: what was acknowledged is there after a restart, and the lab comes
//! to the same end as one that nobody disturbed. A hundred kills, in four labs of twenty-five.

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::{Dice, Kubectl, Options, PATIENCE, Running, Wharf, lab_file, together, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const KILLS: u32 = 25;
/// The longest time from the confirmation that is waited for to the kill.
const KILL_AFTER_MS_MAX: u64 = 40;
/// ConfigMaps written beside each step, to have many small writes to be killed in.
const WITNESSES: usize = 12;

#[test]
fn twenty_five_kills_with_seed_1() {
    disturbed_lab(1);
}

#[test]
fn twenty_five_kills_with_seed_2() {
    disturbed_lab(2);
}

#[test]
fn twenty_five_kills_with_seed_3() {
    disturbed_lab(3);
}

#[test]
fn twenty_five_kills_with_seed_4() {
    disturbed_lab(4);
}

/// A step of the lab, each of which can be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Apply,
    Scale(i64),
    Delete,
}

const LAB: [Step; 5] = [Step::Apply, Step::Scale(5), Step::Scale(30), Step::Scale(5), Step::Delete];

impl Step {
    fn run(self, kubectl: &Kubectl) -> bool {
        let arguments = match self {
            Self::Apply => format!("apply -f {}", lab_file("inflate.yaml")),
            Self::Scale(replicas) => format!("scale deployment inflate --replicas {replicas}"),
            Self::Delete => "delete deployment inflate --wait=false --ignore-not-found".to_owned(),
        };
        kubectl.run(&arguments).code == Some(0)
    }

    /// The replicas of the Deployment once it is done; `None` if there is no Deployment.
    fn leaves(self) -> Option<i64> {
        match self {
            Self::Apply => Some(0),
            Self::Scale(replicas) => Some(replicas),
            Self::Delete => None,
        }
    }
}

/// What a client of the lab has been told.
struct Acknowledged {
    /// Names and values of ConfigMaps whose creation was confirmed.
    witnesses: Vec<(String, String)>,
    /// What the Deployment may look like: as last confirmed, or as asked for since.
    deployment: Vec<Option<i64>>,
    /// The latest creation time seen; cluster time must not fall behind it.
    latest: String,
}

fn disturbed_lab(seed: u64) {
    let data = TempDir::new().expect("a temporary folder");
    let mut dice = Dice(seed);
    let mut known =
        Acknowledged { witnesses: Vec::new(), deployment: vec![None], latest: String::new() };
    let mut next = 0;
    prepare(data.path(), seed);
    for round in 0..KILLS {
        let wharf = start(data.path(), seed);
        check(&wharf.kubectl(), &mut known, &format!("seed {seed}, before kill {round}"));
        let step = LAB[next];
        known.deployment.push(step.leaves());
        let confirmations = usize::try_from(dice.below(WITNESSES as u64)).expect("a small number");
        let kill_after = Duration::from_millis(dice.below(KILL_AFTER_MS_MAX));
        let kubectl = wharf.kubectl();
        let writer = Writer::start(&wharf, round);
        let (done, created) = together(
            move || step.run(&kubectl),
            || {
                // The moment of the kill is drawn from the seed, but counted in confirmed writes
                // for the greater part, so that a slow machine is killed in the middle as well.
                let mut created = writer.next(confirmations);
                std::thread::sleep(kill_after);
                wharf.kill();
                created.extend(writer.next(WITNESSES));
                created
            },
        );
        known.witnesses.extend(created);
        if done {
            known.deployment = vec![step.leaves()];
            next = (next + 1) % LAB.len();
        }
    }
    let wharf = start(data.path(), seed);
    check(&wharf.kubectl(), &mut known, &format!("seed {seed}, at the end"));
    assert!(known.witnesses.len() >= 50, "too few writes were confirmed to prove anything");
    let end = run_to_the_end(&wharf.kubectl());

    let undisturbed = Wharf::start(&options(None, seed));
    apply_pool(&undisturbed.kubectl());
    assert_eq!(end, run_to_the_end(&undisturbed.kubectl()), "seed {seed}: another end");
}

fn options(data: Option<&Path>, seed: u64) -> Options {
    Options {
        data: data.map(Path::to_owned),
        speed: 1000,
        arguments: vec!["--seed".to_owned(), seed.to_string()],
    }
}

fn start(data: &Path, seed: u64) -> Wharf {
    Wharf::start(&options(Some(data), seed))
}

fn prepare(data: &Path, seed: u64) {
    let wharf = start(data, seed);
    apply_pool(&wharf.kubectl());
    wharf.kill();
}

fn apply_pool(kubectl: &Kubectl) {
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
}

/// A kubectl that creates ConfigMaps one after the other.
struct Writer {
    kubectl: Running,
    round: u32,
}

impl Writer {
    fn start(wharf: &Wharf, round: u32) -> Self {
        let items: Vec<Value> = (0..WITNESSES)
            .map(|index| {
                let (name, value) = witness(round, index);
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": name, "labels": {"witness": "yes"}},
                    "data": {"value": value},
                })
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let file = wharf.folder().join("witnesses.json");
        std::fs::write(&file, list).expect("a temporary folder can be written");
        let create = format!("create --validate=false -f {}", file.display());
        Self { kubectl: wharf.kubectl().start(&create), round }
    }

    /// Waits for further confirmations; fewer come if the lab is killed.
    fn next(&self, count: usize) -> Vec<(String, String)> {
        let lines = std::iter::from_fn(|| self.kubectl.lines.recv_timeout(PATIENCE).ok());
        lines
            .take(count)
            .filter_map(|line| {
                (0..WITNESSES)
                    .map(|index| witness(self.round, index))
                    .find(|(name, _)| line == format!("configmap/{name} created"))
            })
            .collect()
    }
}

/// Name and value of a ConfigMap.
fn witness(round: u32, index: usize) -> (String, String) {
    (format!("witness-{round}-{index}"), format!("value {round}/{index}"))
}

/// Everything that was confirmed is there, and time has not gone back.
fn check(kubectl: &Kubectl, known: &mut Acknowledged, when: &str) {
    let stored = kubectl.items("get configmaps -l witness=yes");
    for (name, value) in &known.witnesses {
        let found = stored.iter().find(|item| item["metadata"]["name"] == **name);
        let found = found.unwrap_or_else(|| panic!("{when}: confirmed {name} is lost"));
        assert_eq!(found["data"]["value"], **value, "{when}: {name} has changed");
    }
    let replicas = kubectl
        .items("get deployments")
        .iter()
        .find(|item| item["metadata"]["name"] == "inflate")
        .map(|item| item["spec"]["replicas"].as_i64().unwrap_or_default());
    assert!(
        known.deployment.contains(&replicas),
        "{when}: {replicas:?}, not {:?}",
        known.deployment
    );
    known.deployment = vec![replicas];

    let marker = kubectl.input(
        "create --validate=false -o jsonpath={.metadata.creationTimestamp} -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "time-"}}"#,
    );
    let now = marker.ok();
    assert!(now >= known.latest, "{when}: time went back from {} to {now}", known.latest);
    known.latest = now;
}

/// What five pods of one CPU leave room for on the machine that is right for them, in milli-CPU. A
/// larger one, left over from thirty pods, is replaced by and by.
const RIGHT_SIZE_MILLI: i64 = 10_000;

/// Scales to five pods, waits until one machine of the right size holds them, deletes them, and
/// waits until nothing is left. Returns the machines that held the five pods at last.
fn run_to_the_end(kubectl: &Kubectl) -> Vec<String> {
    assert!(Step::Apply.run(kubectl) && Step::Scale(5).run(kubectl));
    let machines = wait_for("five pods on one machine", || {
        let nodes = kubectl.items("get nodes");
        let pods = kubectl.items("get pods -l app=inflate");
        let names: Vec<&Value> = nodes.iter().map(|node| &node["metadata"]["name"]).collect();
        let settled = pods.len() == 5
            && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
            && pods.iter().all(|pod| names.contains(&&pod["spec"]["nodeName"]))
            && nodes.len() == 1
            && nodes.iter().all(|node| {
                let cpu = node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default();
                let milli = cpu.strip_suffix('m').and_then(|milli| milli.parse::<i64>().ok());
                milli.is_some_and(|milli| milli < RIGHT_SIZE_MILLI)
            });
        let types: Vec<String> = nodes
            .iter()
            .map(|node| {
                let label = &node["metadata"]["labels"]["node.kubernetes.io/instance-type"];
                label.as_str().unwrap_or_default().to_owned()
            })
            .collect();
        if settled { Ok(types) } else { Err(format!("{} pods on {types:?}", pods.len())) }
    });
    assert!(Step::Delete.run(kubectl));
    wait_for("nothing to be left", || {
        let left = kubectl.ok("get nodes,nodeclaims,pods,replicasets -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    machines
}

//! Fargate in a whole world: pods that a profile takes get machines of their own, and nothing else
//! moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use wharf_controllers::event_loop::NoRecorder;
use wharf_model::fargate::{FargateProfile, status};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{ObjectKey, Typed};
use wharf_model::subnet::{Cidr, Subnet, SubnetSpec};
use wharf_model::time::Time;
use wharf_ports::clock::{Clock, VirtualClock};
use wharf_ports::cluster::{Delete, Write};
use wharf_registry::Registry;
use wharf_scheduler::config::Configuration;
use wharf_sim::cluster::Cluster;
use wharf_sim::ledger::Ledger;
use wharf_sim::world::{Controllers, World, WorldSettings};
use wharf_store::Store;

/// 2026-01-01T00:00:00Z.
const START: Time = Time::from_seconds(1_767_225_600);

struct Lab {
    world: World,
    registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
}

impl Lab {
    /// The cluster of the labs: 10.10.0.0/16 with three private subnets, and the profile `study-*`.
    fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    /// The same with something else about the cluster.
    fn with(seed: u64, change: impl FnOnce(&mut Cluster)) -> Self {
        let vpc: Cidr = "10.10.0.0/16".parse().expect("a block");
        let subnets = ["a", "b", "c"].iter().enumerate().map(|(index, zone)| {
            let spec = SubnetSpec {
                cidr_block: vpc.part(4, index as u32).to_string(),
                zone: format!("ap-northeast-2{zone}"),
                zone_id: format!("apne2-az{}", index + 1),
                public: false,
            };
            Subnet::new(format!("subnet-{zone}"), spec)
        });
        let mut cluster = Cluster {
            name: "fargate-serverless".to_owned(),
            subnets: subnets.collect(),
            profiles: vec![profile("study_wildcard", "study-*")],
            ..Cluster::default()
        };
        change(&mut cluster);
        let settings = WorldSettings {
            region: "ap-northeast-2".to_owned(),
            seed,
            controllers: Controllers::All,
            scheduler: Configuration::default(),
            vpa_storage: Default::default(),
            metrics_apis: Default::default(),
            cluster,
        };
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry = Arc::new(Registry::new(Store::rehearsal(), clock.clone(), seed));
        let world = World::new(Arc::clone(&registry), &settings).expect("a world");
        let mut lab = Self { world, registry, clock };
        let namespace = json!({"metadata": {"name": "study-aews"}});
        lab.create::<Namespace>(namespace);
        lab.run_for(1);
        lab
    }

    fn create<T: Resource>(&mut self, manifest: Value) {
        let object: T = serde_json::from_value(manifest).expect("a valid manifest");
        self.registry.apply(Write::Create(Box::new(object))).expect("the API takes it");
    }

    fn run_for(&mut self, seconds: u64) {
        let until = self.clock.now() + Duration::from_secs(seconds);
        loop {
            self.world.run_due(self.clock.now(), &mut NoRecorder).expect("it comes to rest");
            match self.world.next_wake().filter(|at| *at <= until) {
                Some(at) => self.clock.advance_to(at),
                None => break,
            }
        }
        self.clock.advance_to(until);
    }

    fn pod(&self, name: &str) -> &Pod {
        self.world.view().get(&ObjectKey::namespaced("study-aews", name)).expect("the pod is there")
    }

    fn delete(&mut self, name: &str) {
        let key = ObjectKey::namespaced("study-aews", name);
        let pod = self.world.view().object(Kind::of::<Pod>(), &key).expect("the pod is there");
        self.registry.apply(Write::Delete(Delete::of(pod))).expect("the API takes it");
    }

    /// What was said of a pod, in order: component, reason and text.
    fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let events = self.world.view().list::<Event>();
        let mut found: Vec<_> = events
            .filter(|event| event.involved_object.name.as_deref() == Some(name))
            .map(|event| {
                let text = |field: &Option<String>| field.clone().unwrap_or_default();
                let at = event.metadata.name.clone();
                let said =
                    (text(&event.reporting_component), text(&event.reason), text(&event.message));
                (at, said)
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, said)| said).collect()
    }

    fn nodes(&self) -> Vec<&Node> {
        self.world.view().list::<Node>().collect()
    }

    fn machines_up(&self) -> usize {
        let is_up = |machine: &&Instance| {
            matches!(machine.status.state, InstanceState::Pending | InstanceState::Running)
        };
        self.world.view().list::<Instance>().filter(is_up).count()
    }
}

fn profile(name: &str, namespace: &str) -> FargateProfile {
    serde_json::from_value(json!({
        "metadata": {"name": name.replace('_', "-"), "namespace": "kube-system"},
        "spec": {"name": name, "selectors": [{"namespace": namespace}]},
    }))
    .expect("a valid profile")
}

fn pod(name: &str, spec: Value) -> Value {
    let mut whole = json!({"containers": [{"name": "c", "image": "nicolaka/netshoot",
        "command": ["tail"], "args": ["-f", "/dev/null"],
        "resources": {"requests": {"cpu": "500m", "memory": "500Mi"}}}]});
    for (key, value) in spec.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    json!({"metadata": {"name": name, "namespace": "study-aews"}, "spec": whole})
}

fn annotation<'p>(pod: &'p Pod, key: &str) -> Option<&'p str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[test]
fn a_pod_gets_a_node_of_its_own_and_takes_it_with_it() {
    let mut lab = Lab::new(1);
    lab.create::<Pod>(pod("netshoot", json!({"terminationGracePeriodSeconds": 0})));
    lab.run_for(1);
    let waiting = lab.pod("netshoot");
    assert_eq!(annotation(waiting, "CapacityProvisioned"), Some("0.5vCPU 1GB"));
    assert_eq!(
        annotation(waiting, "Logging"),
        Some("LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND")
    );
    assert_eq!(waiting.spec.as_ref().and_then(|spec| spec.node_name.clone()), None);
    lab.run_for(37);
    assert!(lab.pod("netshoot").spec.as_ref().is_some_and(|spec| spec.node_name.is_none()));
    lab.run_for(40);

    let running = lab.pod("netshoot");
    let status = running.status.as_ref().expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let [node] = lab.nodes()[..] else { panic!("one node") };
    let name = node.metadata.name.clone().expect("a name");
    assert_eq!(running.spec.as_ref().and_then(|spec| spec.node_name.as_ref()), Some(&name));
    let address = status.pod_ip.clone().expect("an address");
    assert_eq!(status.host_ip.as_deref(), Some(address.as_str()), "it is the node's");
    let host = format!("ip-{}.ap-northeast-2.compute.internal", address.replace('.', "-"));
    assert_eq!(name, format!("fargate-{host}"));
    assert!(address.starts_with("10.10."), "{address}");
    let labels = node.metadata.labels.as_ref().expect("labels");
    assert_eq!(labels["eks.amazonaws.com/compute-type"], "fargate");
    assert_eq!(labels["kubernetes.io/hostname"], host);
    assert!(!labels.contains_key("node.kubernetes.io/instance-type"));
    let spec = node.spec.as_ref().expect("a spec");
    let taints = spec.taints.as_ref().expect("taints");
    assert_eq!(taints.len(), 1, "{taints:?}");
    assert_eq!(
        wharf_model::taints::display(&taints[0]),
        "eks.amazonaws.com/compute-type=fargate:NoSchedule"
    );
    assert!(spec.provider_id.as_ref().is_some_and(|id| id.ends_with(&format!("/{name}"))));
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    assert_eq!(capacity.expect("capacity")["pods"].0, "1");

    let said = lab.events("netshoot");
    let words: Vec<(&str, &str)> =
        said.iter().map(|(by, reason, _)| (by.as_str(), reason.as_str())).collect();
    let (fargate, kubelet) = ("fargate-scheduler", "kubelet");
    assert_eq!(
        words,
        [
            (fargate, "LoggingDisabled"),
            (fargate, "Scheduled"),
            (kubelet, "Pulling"),
            (kubelet, "Pulled"),
            (kubelet, "Created"),
            (kubelet, "Started"),
        ]
    );
    assert_eq!(said[1].2, format!("Successfully assigned study-aews/netshoot to {name}"));

    lab.delete("netshoot");
    lab.run_for(10);
    assert_eq!((lab.nodes().len(), lab.machines_up()), (0, 0));
    let ledger = Ledger::of(lab.world.view().list::<Instance>(), lab.clock.now());
    let [line] = &ledger.lines[..] else { panic!("one line") };
    assert_eq!(
        (line.capacity_type.as_str(), line.instance_type.as_str()),
        ("fargate", "0.5vCPU 1GB")
    );
    assert_eq!(line.price.to_string(), "0.02839");
    assert!(!line.running && line.elapsed() < Duration::from_secs(45), "{:?}", line.elapsed());
    // A minute at least.
    assert_eq!(line.cost.nano_dollars(), 28_390_000 / 60 + i128::from(28_390_000 % 60 >= 30));
}

#[test]
fn what_fargate_refuses_waits_and_costs_nothing() {
    let mut lab = Lab::new(1);
    let root_shell = json!({
        "hostNetwork": true, "hostPID": true, "hostIPC": true,
        "containers": [{"name": "root-shell", "image": "alpine:3",
            "securityContext": {"privileged": true}}],
        "volumes": [{"name": "hostroot", "hostPath": {"path": "/"}}],
    });
    lab.create::<Pod>(pod("root-shell", root_shell));
    let huge = json!({"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "17"}}}]});
    lab.create::<Pod>(pod("huge", huge));
    lab.run_for(600);
    for (name, reason, message) in [
        (
            "root-shell",
            "POD_UNSUPPORTED_ON_FARGATE",
            "Pod not supported on Fargate: fields not supported: HostNetwork, HostPID, HostIPC, volumes not supported: hostroot is of an unsupported volume Type, invalid SecurityContext fields: Privileged",
        ),
        (
            "huge",
            "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE",
            "Your pod's cpu/memory requirements exceed the max Fargate configuration",
        ),
    ] {
        let expected =
            ("fargate-scheduler".to_owned(), "FailedScheduling".to_owned(), message.to_owned());
        assert_eq!(lab.events(name), [expected], "it is told once");
        let condition = wharf_model::pod::condition(lab.pod(name), "PodScheduled").expect("told");
        assert_eq!(condition.status, "False");
        assert_eq!(condition.reason.as_deref(), Some(reason));
        assert_eq!(condition.message.as_deref(), Some(message));
    }
    assert_eq!(
        lab.world.view().list::<Instance>().count(),
        0,
        "Karpenter buys nothing for it either"
    );
}

#[test]
fn a_pod_that_has_ended_keeps_its_machine() {
    let mut lab = Lab::new(1);
    let job = json!({"restartPolicy": "Never", "containers": [{"name": "busybox", "image": "busybox",
        "command": ["/bin/sh", "-c", "sleep 10"]}]});
    lab.create::<Pod>(pod("busybox1", job));
    lab.run_for(300);
    let phase = |lab: &Lab| wharf_model::pod::phase(lab.pod("busybox1")).to_owned();
    assert_eq!(phase(&lab), "Succeeded");
    assert_eq!(annotation(lab.pod("busybox1"), "CapacityProvisioned"), Some("0.25vCPU 0.5GB"));
    assert_eq!((lab.nodes().len(), lab.machines_up()), (1, 1));
    lab.delete("busybox1");
    lab.run_for(10);
    assert_eq!((lab.nodes().len(), lab.machines_up()), (0, 0));
}

#[test]
fn logging_is_as_the_map_says_when_the_pod_comes() {
    let mut lab = Lab::new(1);
    let map = |output: &str| {
        json!({"metadata": {"name": "aws-logging", "namespace": "aws-observability"},
            "data": {"output.conf": output}})
    };
    lab.create::<Namespace>(json!({"metadata": {"name": "aws-observability"}}));
    lab.create::<ConfigMap>(map("[OUTPUT]\n  Name cloudwatch_logs\n  Match *\n"));
    lab.create::<Pod>(pod("unlabelled", json!({})));
    lab.run_for(1);
    assert_eq!(
        annotation(lab.pod("unlabelled"), "Logging"),
        Some("LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND")
    );
    let labelled = json!({"metadata": {"name": "aws-observability",
        "labels": {"aws-observability": "enabled"}}});
    let namespace: Namespace = serde_json::from_value(labelled).expect("valid");
    let part = wharf_ports::cluster::Part::Main;
    let object: Box<dyn Typed> = Box::new(namespace);
    lab.registry.apply(Write::Update { object, part }).expect("the API takes it");
    lab.create::<Pod>(pod("logged", json!({})));
    lab.run_for(1);
    assert_eq!(annotation(lab.pod("logged"), "Logging"), Some("LoggingEnabled"));
    assert_eq!(
        lab.events("logged"),
        [(
            "fargate-scheduler".to_owned(),
            "LoggingEnabled".to_owned(),
            "Successfully enabled logging for pod".to_owned()
        )]
    );
}

#[test]
fn many_pods_get_addresses_of_their_own_and_the_same_ones_every_time() {
    let run = || {
        let mut lab = Lab::new(7);
        for number in 0..60 {
            lab.create::<Pod>(pod(&format!("p{number}"), json!({})));
        }
        lab.run_for(120);
        let pods = lab.world.view().list_in::<Pod>("study-aews");
        let addresses: Vec<String> = pods
            .filter_map(|pod| {
                let status = pod.status.as_ref()?;
                assert_eq!(status.host_ip, status.pod_ip);
                status.pod_ip.clone()
            })
            .collect();
        let zones: Vec<String> = lab
            .nodes()
            .iter()
            .filter_map(|node| {
                node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
            })
            .collect();
        (addresses, zones)
    };
    let (addresses, zones) = run();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 60);
    for zone in ["a", "b", "c"] {
        let zone = format!("ap-northeast-2{zone}");
        assert_eq!(zones.iter().filter(|other| **other == zone).count(), 20, "{zone}");
    }
    assert_eq!(run(), (addresses, zones));
}

#[test]
fn profiles_go_one_after_the_other_and_none_comes_meanwhile() {
    let mut lab = Lab::new(1);
    let namespace = json!({"metadata": {"name": "shop"}});
    lab.create::<Namespace>(namespace);
    lab.registry.apply(Write::Create(Box::new(profile("a_shop", "shop")))).expect("made");
    lab.run_for(400);
    lab.create::<Pod>(pod("netshoot", json!({"terminationGracePeriodSeconds": 60})));
    lab.run_for(120);
    let kind = Kind::of::<FargateProfile>();
    let going = |lab: &Lab, name: &str| {
        let key = ObjectKey::namespaced("kube-system", name);
        lab.world.view().object(kind, &key).cloned()
    };
    for name in ["study-wildcard", "a-shop"] {
        let object = going(&lab, name).expect("it is there");
        lab.registry.apply(Write::Delete(Delete::of(&object))).expect("the API takes it");
        lab.run_for(1);
    }
    let state = |lab: &Lab, name: &str| {
        going(lab, name)
            .and_then(|profile| profile.typed::<FargateProfile>()?.status.status.clone())
    };
    assert_eq!(state(&lab, "study-wildcard").as_deref(), Some(status::DELETING));
    assert_eq!(state(&lab, "a-shop").as_deref(), Some(status::ACTIVE), "it waits");
    let refusal = lab.registry.apply(Write::Create(Box::new(profile("new", "new")))).unwrap_err();
    assert!(
        refusal.message.starts_with(
            "Cannot create Fargate Profile new because the cluster currently has Fargate profile"
        ),
        "{refusal}"
    );
    assert!(refusal.message.ends_with("in status DELETING"), "{refusal}");
    lab.run_for(120);
    assert!(going(&lab, "study-wildcard").is_none() && going(&lab, "a-shop").is_none());
    lab.registry.apply(Write::Create(Box::new(profile("new", "new")))).expect("now it may");
}

#[test]
fn a_profile_comes_and_goes() {
    let mut lab = Lab::new(1);
    lab.create::<Namespace>(json!({"metadata": {"name": "shop"}}));
    let manifest = serde_json::to_value(profile("shop", "shop")).expect("plain data");
    lab.create::<FargateProfile>(manifest);
    lab.run_for(60);
    let key = ObjectKey::namespaced("kube-system", "shop");
    let state = |lab: &Lab| {
        let profile = lab.world.view().get::<FargateProfile>(&key);
        profile.map(|profile| profile.status.status.clone().unwrap_or_default())
    };
    assert_eq!(state(&lab).as_deref(), Some(status::CREATING));
    lab.run_for(300);
    assert_eq!(state(&lab).as_deref(), Some(status::ACTIVE));
    let in_shop = |name: &str| {
        let mut pod = pod(name, json!({}));
        pod["metadata"]["namespace"] = json!("shop");
        pod
    };
    lab.create::<Pod>(in_shop("a"));
    lab.run_for(90);
    assert_eq!(lab.machines_up(), 1);
    let object = lab.world.view().object(Kind::of::<FargateProfile>(), &key).expect("there");
    lab.registry.apply(Write::Delete(Delete::of(object))).expect("the API takes it");
    lab.run_for(2);
    assert_eq!(state(&lab).as_deref(), Some(status::DELETING));
    lab.run_for(60);
    assert_eq!(state(&lab), None);
    assert_eq!((lab.nodes().len(), lab.machines_up()), (0, 0));
}

/// What the scheduler said of a pod's failed starts.
fn failures(lab: &Lab, name: &str) -> Vec<String> {
    let events = lab.events(name).into_iter();
    let failed = events.filter(|(_, reason, _)| reason == "FailedScheduling");
    failed.map(|(_, _, message)| message).collect()
}

#[test]
fn a_machine_whose_node_never_comes_is_given_up_for_another() {
    let mut lab = Lab::new(1);
    lab.create::<Pod>(pod("netshoot", json!({})));
    lab.run_for(38);
    // Somebody deletes the node between its registration and its being ready.
    let nodes: Vec<_> = lab.world.view().objects(Kind::of::<Node>()).cloned().collect();
    assert_eq!(nodes.len(), 1, "it has registered");
    lab.registry.apply(Write::Delete(Delete::of(&nodes[0]))).expect("deleted");
    lab.run_for(500);
    assert!(lab.pod("netshoot").spec.as_ref().expect("a spec").node_name.is_none());
    lab.run_for(300);
    assert_eq!(
        failures(&lab, "netshoot"),
        ["Pod provisioning timed out (will retry) for pod: study-aews/netshoot"]
    );
    let spec = lab.pod("netshoot").spec.clone().expect("a spec");
    assert!(spec.node_name.is_some(), "it runs on another");
    assert_eq!((lab.machines_up(), lab.nodes().len()), (1, 1));
    assert_eq!(lab.world.view().list::<Instance>().count(), 2, "and both are billed");
}

#[test]
fn pods_wait_while_the_quota_is_used_up() {
    let mut lab = Lab::with(1, |cluster| cluster.fargate_vcpus_max = Some(1));
    for name in ["one", "two", "three"] {
        lab.create::<Pod>(pod(name, json!({"terminationGracePeriodSeconds": 0})));
    }
    lab.run_for(130);
    let is_bound = |lab: &Lab, name: &str| {
        lab.pod(name).spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
    };
    let names = ["one", "two", "three"];
    let waiting: Vec<&str> = names.into_iter().filter(|name| !is_bound(&lab, name)).collect();
    assert_eq!(waiting.len(), 1, "half a vCPU each");
    let said = failures(&lab, waiting[0]);
    assert_eq!(
        said[0],
        "You've reached the limit on the number of Fargate vCPUs you can run concurrently: 1"
    );
    let running = names.into_iter().find(|name| is_bound(&lab, name)).expect("one runs");
    lab.delete(running);
    lab.run_for(200);
    assert!(is_bound(&lab, waiting[0]), "it was tried again");
}

#[test]
fn a_role_that_the_cluster_does_not_know_blocks_its_profile() {
    let role = "arn:aws:iam::111122223333:role/pods";
    let mut lab = Lab::with(1, |cluster| {
        cluster.profiles[0].spec.pod_execution_role_arn = Some(role.to_owned());
    });
    let map = |roles: &str| json!({"metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": {"mapRoles": roles}});
    lab.create::<ConfigMap>(map("- rolearn: arn:aws:iam::111122223333:role/pods-of-others\n"));
    lab.create::<Pod>(pod("netshoot", json!({})));
    lab.run_for(70);
    assert_eq!(
        failures(&lab, "netshoot")[0],
        "Misconfigured Fargate Profile: fargate profile study_wildcard blocked for new launches due to: Pod execution role is not found in auth config or does not have all required permissions for launching fargate pods."
    );
    assert_eq!(lab.machines_up(), 0);
    let map: ConfigMap =
        serde_json::from_value(map(&format!("- rolearn: {role}\n"))).expect("a map");
    let part = wharf_ports::cluster::Part::Main;
    lab.registry.apply(Write::Update { object: Box::new(map), part }).expect("changed");
    lab.run_for(130);
    assert_eq!(lab.machines_up(), 1);
}

#[test]
fn patches_evict_zone_by_zone_and_tell_of_what_budgets_protect() {
    const DAY: u64 = 86_400;
    let mut lab = Lab::with(1, |cluster| {
        cluster.fargate_patch_every = Some(Duration::from_secs(30 * DAY));
    });
    for index in 0..3 {
        lab.create::<Pod>(pod(&format!("plain-{index}"), json!({})));
    }
    let mut protected = pod("protected", json!({}));
    protected["metadata"]["labels"] = json!({"app": "protected"});
    lab.create::<Pod>(protected);
    lab.create::<PodDisruptionBudget>(json!({
        "metadata": {"name": "b", "namespace": "study-aews"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "protected"}}},
    }));
    lab.run_for(180);
    assert_eq!(lab.machines_up(), 4);
    // The next round begins within thirty days; it takes three zones and ten minutes between them.
    let every = 30 * DAY as i64;
    let begins = START.as_seconds().div_euclid(every) * every + every;
    let until = (begins - lab.clock.now().as_seconds()) as u64;
    lab.run_for(until - 60);
    assert_eq!(lab.machines_up(), 4, "nothing before the round");
    let pods = |lab: &Lab| {
        lab.world
            .view()
            .list::<Pod>()
            .filter(|pod| pod.metadata.namespace.as_deref() == Some("study-aews"))
            .count()
    };
    let mut gone = Vec::new();
    for _ in 0..4 {
        lab.run_for(600);
        gone.push(4 - pods(&lab));
    }
    assert!(gone.is_sorted() && gone[0] < 3 && gone[3] == 3, "zone by zone: {gone:?}");
    let told: Vec<String> = lab
        .events("protected")
        .into_iter()
        .filter(|(_, reason, _)| reason == "ScheduledTermination")
        .map(|(_, _, message)| message)
        .collect();
    assert_eq!(told.len(), 1, "once");
    let event: Value = serde_json::from_str(&told[0]).expect("an EventBridge event");
    assert_eq!(event["detail-type"], "EKS Fargate Pod Scheduled Termination");
    let detail = &event["detail"];
    assert_eq!(detail["podName"], "protected");
    assert_eq!(
        detail["evictErrorMessage"],
        "Cannot evict pod as it would violate the pod's disruption budget"
    );
    lab.run_for(3 * DAY);
    assert_eq!(pods(&lab), 0, "deleted at the time told");
    assert_eq!(lab.machines_up(), 0);
}

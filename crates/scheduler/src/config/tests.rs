use serde_json::json;

use super::*;
use crate::profile::{FitRule, SpreadDefaults};

fn read(body: &str) -> Result<Configuration, String> {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}");
    load(&text, "s.yaml").map_err(|error| error.to_string())
}

fn profile(body: &str) -> Profile {
    read(body).expect("it is valid").profiles.remove(0)
}

fn refused(body: &str, message: &str) {
    let error = read(body).expect_err(body);
    assert!(error.contains(message), "{error}\n  does not say\n{message}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(read("").unwrap(), Configuration::default());
    assert_eq!(read("profiles: [{}]").unwrap(), Configuration::default());
    assert_eq!(read("profiles: [{plugins: {}}]").unwrap(), Configuration::default());
    let json = json!({"apiVersion": API_VERSION, "kind": KIND}).to_string();
    assert_eq!(load(&json, "s.json").unwrap(), Configuration::default());
}

#[test]
fn scalars_and_profiles() {
    let config = read(
        "parallelism: 4\npodInitialBackoffSeconds: 2\npodMaxBackoffSeconds: 30\npercentageOfNodesToScore: 40\n\
         leaderElection: {leaderElect: false, resourceName: x}\nclientConnection: {qps: 5.5, burst: 7}\n\
         profiles: [{schedulerName: a}, {schedulerName: b, percentageOfNodesToScore: 10}]",
    )
    .unwrap();
    assert_eq!((config.parallelism, config.client_connection.qps), (4, 5.5));
    let backoff = (config.pod_initial_backoff.as_secs(), config.pod_max_backoff.as_secs());
    assert_eq!(backoff, (2, 30));
    let profiles: Vec<_> = config
        .profiles
        .iter()
        .map(|profile| (profile.scheduler_name.as_str(), profile.percentage_of_nodes_to_score))
        .collect();
    assert_eq!(profiles, [("a", 40), ("b", 10)]);
    assert!(!config.leader_election.leader_elect);
}

#[test]
fn plugins_are_merged_as_upstream_does() {
    let scores = |body: &str| {
        let profile = profile(&format!("profiles: [{{plugins: {body}}}]"));
        let scores = profile.scores.iter();
        scores.map(|(plugin, weight)| format!("{}={weight}", plugin.name())).collect::<Vec<_>>()
    };
    assert_eq!(
        scores(
            "{score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 7}, {name: NodeResourcesFit}]}}"
        ),
        ["ImageLocality=7", "NodeResourcesFit=1"]
    );
    let replaced = scores("{multiPoint: {enabled: [{name: NodeAffinity, weight: 9}]}}");
    assert_eq!(replaced[..2], ["TaintToleration=3", "NodeAffinity=9"], "in its place");
    let unweighted = scores("{multiPoint: {enabled: [{name: NodeAffinity}]}}");
    assert_eq!(unweighted[1], "NodeAffinity=1", "its default weight goes with its default entry");
    let front = scores("{score: {enabled: [{name: ImageLocality, weight: 5}]}}");
    assert_eq!(front[..2], ["ImageLocality=5", "TaintToleration=3"], "a point's own come first");
    assert_eq!(front.len(), 9);
    let again = scores(
        "{multiPoint: {disabled: [{name: TaintToleration}], enabled: [{name: TaintToleration, weight: 2}]}}",
    );
    assert_eq!(again.last().unwrap(), "TaintToleration=2", "disabled, then enabled as the last");
    let without = scores("{score: {disabled: [{name: ImageLocality}]}}");
    assert!(!without.contains(&"ImageLocality=1".to_owned()) && without.len() == 8);
}

#[test]
fn star_at_multi_point_leaves_only_what_is_named() {
    let profile = profile(
        "profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeName}]}}}]",
    );
    assert_eq!((profile.filters, profile.scores), (vec![Plugin::NodeName], vec![]));
    assert!(!profile.preemption && !profile.tells_of_claims && profile.pre_enqueue.is_empty());
}

#[test]
fn gang_scheduling_is_enabled_by_name() {
    let profile =
        profile("profiles: [{plugins: {multiPoint: {enabled: [{name: GangScheduling}]}}}]");
    assert_eq!(profile.permit, [Plugin::GangScheduling]);
    assert!(profile.pre_enqueue.contains(Plugin::GangScheduling));
    assert!(Profile::default().permit.is_empty());
}

#[test]
fn arguments_reach_the_plugins() {
    let args = "profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResources: [example.com/foo]
      ignoredResourceGroups: [example.org]
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 3}, {name: example.com/gpu}]
        requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
  - name: NodeResourcesBalancedAllocation
    args: {resources: [{name: memory, weight: 1}]}
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 50, ignorePreferredTermsOfExistingPods: true}
  - name: VolumeBinding
    args: {bindTimeoutSeconds: 60}
  - name: DefaultPreemption
    args: {minCandidateNodesPercentage: 20, minCandidateNodesAbsolute: 5}
  - name: DynamicResources
    args: {filterTimeout: 3s, bindingTimeout: 1m}
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [batch]}]}]";
    let profile = profile(args);
    let shape = vec![(0, 0), (100, 10)];
    assert_eq!(profile.fit.rule, FitRule::RequestedToCapacityRatio(shape));
    assert_eq!(profile.fit.resources, [("cpu".into(), 3), ("example.com/gpu".into(), 1)]);
    assert_eq!(profile.balanced, ["memory"]);
    let SpreadDefaults::List(list) = &profile.arguments.spread_defaults else { panic!("a list") };
    assert_eq!((list[0].max_skew, list[0].topology_key.as_str()), (2, "zone"));
    let arguments = &profile.arguments;
    assert_eq!(arguments.ignored_resources, ["example.com/foo"]);
    assert_eq!(arguments.ignored_resource_groups, ["example.org"]);
    assert_eq!(arguments.hard_pod_affinity_weight, 50);
    assert!(arguments.ignore_preferred_terms_of_existing_pods);
    assert_eq!(arguments.volume_bind_timeout.as_secs(), 60);
    assert_eq!(arguments.device_filter_timeout.as_secs(), 3);
    assert_eq!(arguments.device_binding_timeout.as_secs(), 60);
    let candidates = (profile.min_candidate_nodes_percentage, profile.min_candidate_nodes_absolute);
    assert_eq!(candidates, (20, 5));
    assert!(profile.added_affinity_spec.is_some());
}

#[test]
fn extenders_that_may_fail_come_last() {
    let config = read(
        "extenders:
- {urlPrefix: 'http://a/x/', filterVerb: filter, ignorable: true}
- {urlPrefix: 'http://b', prioritizeVerb: prioritize, weight: 2, httpTimeout: 2s, managedResources: [{name: example.com/fpga, ignoredByScheduler: true}]}",
    )
    .unwrap();
    let [b, a] = config.extenders.as_slice() else { panic!("there are two") };
    assert_eq!(
        (a.url("filter"), b.url("prioritize")),
        ("http://a/x/filter".to_owned(), "http://b/prioritize".to_owned())
    );
    assert_eq!((a.timeout.as_secs(), b.timeout.as_secs(), b.weight), (5, 2, 2));
    let ignored = &config.profiles[0].arguments.ignored_resources;
    assert_eq!(ignored, &["example.com/fpga"], "the scheduler itself leaves it alone");
}

#[test]
fn refusals_name_the_field_and_what_is_allowed() {
    let plugins = |body: &str| format!("profiles: [{{plugins: {body}}}]");
    let args = |plugin: &str, args: &str| {
        format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]")
    };
    for (body, message) in [
        ("profile: []", "s.yaml: profile: unknown field; the fields here are apiVersion, kind,"),
        (
            "percentageOfNodesToScore: 101",
            "s.yaml: percentageOfNodesToScore: expected a whole number from 0 to 100, found 101",
        ),
        ("profiles: [{percentageOfNodesToScore: -1}]", "profiles[0].percentageOfNodesToScore: "),
        ("profiles: {}", "s.yaml: profiles: expected a list, found a mapping"),
        ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: expected a whole number"),
        ("podMaxBackoffSeconds: x", "podMaxBackoffSeconds: expected a whole number"),
        (
            "{podInitialBackoffSeconds: 20}".trim_matches(['{', '}']),
            "podMaxBackoffSeconds: 10 is less than podInitialBackoffSeconds, which is 20",
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName: \"a\" is another profile's name too",
        ),
        ("profiles: [{}, {schedulerName: a}]", "profiles[0].schedulerName: is required"),
        ("leaderElection: {leaseDuration: 5s}", "leaderElection.leaseDuration: has to be longer"),
        (
            "extenders: [{urlPrefix: 'http://a', prioritizeVerb: p}]",
            "extenders[0].weight: has to be at least 1",
        ),
        (
            "extenders: [{urlPrefix: 'http://a', bindVerb: b}, {urlPrefix: 'http://b', bindVerb: b}]",
            "extenders[1].bindVerb: only one extender may bind",
        ),
        ("extenders: [{urlPrefix: a}]", "extenders[0].urlPrefix: has to begin with http://"),
    ] {
        refused(body, message);
    }
    for (body, message) in [
        (
            "{filter: {enabled: [{name: Foo}]}}",
            "profiles[0].plugins.filter.enabled[0].name: unknown plugin \"Foo\"; the plugins are SchedulingGates,",
        ),
        (
            "{score: {enabled: [{name: NodeName}]}}",
            "enabled[0].name: NodeName has no part in score; those that have are TaintToleration,",
        ),
        (
            "{score: {enabled: [{name: ImageLocality}, {name: ImageLocality, weight: 2}]}}",
            "enabled[1].name: ImageLocality is enabled here twice",
        ),
        (
            "{score: {enabled: [{name: ImageLocality, weight: -1}]}}",
            "enabled[0].weight: expected a whole number from 0 to 2147483647, found -1",
        ),
        (
            "{scores: {}}",
            "profiles[0].plugins.scores: unknown field; the fields here are preEnqueue,",
        ),
        ("{queueSort: {disabled: [{name: '*'}]}}", "plugins.queueSort: one plugin has to sort"),
        ("{bind: {disabled: [{name: DefaultBinder}]}}", "plugins.bind: at least one plugin has to"),
        (
            "{preFilter: {disabled: [{name: NodePorts}]}}",
            "plugins.preFilter: NodePorts is enabled at filter and needs what it does here",
        ),
    ] {
        refused(&plugins(body), message);
    }
    for (plugin, given, message) in [
        ("NodeName", "{}", "name: NodeName takes no arguments; those that do are NodeAffinity,"),
        ("Foo", "{}", "name: unknown plugin \"Foo\"; those that do are NodeAffinity,"),
        (
            "InterPodAffinity",
            "{hardPodAffinityWeight: 101}",
            "args.hardPodAffinityWeight: expected",
        ),
        (
            "InterPodAffinity",
            "{kind: X}",
            "args.kind: the arguments here are of kind InterPodAffinityArgs",
        ),
        ("VolumeBinding", "{shape: []}", "args.shape: needs feature gate StorageCapacityScoring"),
        (
            "VolumeBinding",
            "{bindTimeout: 5}",
            "args.bindTimeout: unknown field; the fields here are",
        ),
        (
            "NodeResourcesFit",
            "{ignoredResourceGroups: [a.b/c]}",
            "ignoredResourceGroups[0]: a group is what",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: Most}}",
            "scoringStrategy.type: unknown type \"Most\"",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {resources: [{name: cpu, weight: 101}]}}",
            "resources[0].weight: expected a whole number from 0 to 100, found 101",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 5}, {utilization: 5}]}}}",
            "shape[1].utilization: has to be larger than the one before",
        ),
        (
            "NodeResourcesBalancedAllocation",
            "{resources: [{name: cpu, weight: 2}]}",
            "resources[0].weight",
        ),
        (
            "DefaultPreemption",
            "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}",
            "cannot both be 0",
        ),
        ("DynamicResources", "{bindingTimeout: 10ms}", "bindingTimeout: has to be at least 1s"),
        (
            "PodTopologySpread",
            "{defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]}",
            "args.defaultingType: has to be List",
        ),
        (
            "PodTopologySpread",
            "{defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: Ever}]}",
            "whenUnsatisfiable: \"Ever\" is not one of DoNotSchedule, ScheduleAnyway",
        ),
        ("NodeAffinity", "{addedAffinity: {}}", "args.addedAffinity: is empty"),
        (
            "NodeAffinity",
            "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Is}]}]}}}",
            "matchExpressions[0].operator: \"Is\" is not one of In,",
        ),
    ] {
        refused(&args(plugin, given), message);
    }
    refused(
        "profiles: [{pluginConfig: [{name: VolumeBinding}, {name: VolumeBinding}]}]",
        "pluginConfig[1].name: VolumeBinding is configured twice",
    );
}

#[test]
fn a_text_that_is_no_yaml_is_refused_with_its_place() {
    let error = read("profiles: [").unwrap_err();
    assert!(error.starts_with("s.yaml:3:") || error.starts_with("s.yaml:4:"), "{error}");
    let twice = read(
        "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: 1, weight: 2}]}}}]",
    );
    let error = twice.unwrap_err();
    assert!(error.starts_with("s.yaml:3:") && error.contains("weight"), "{error}");
    let wrong = load("apiVersion: v1\nkind: KubeSchedulerConfiguration", "s.yaml").unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "s.yaml: apiVersion: \"v1\" is not known; write kubescheduler.config.k8s.io/v1"
    );
    assert!(load("[]", "s.yaml").unwrap_err().to_string().contains("the file: expected a mapping"));
}

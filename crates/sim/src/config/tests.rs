use std::path::Path;

use super::*;

const HEAD: &str = "apiVersion: eksctl.io/v1alpha5
kind: ClusterConfig
metadata:
  name: demo
  region: ap-northeast-2
";

fn read(rest: &str) -> Result<ClusterConfig, String> {
    load(&format!("{HEAD}{rest}"), "c.yaml").map_err(|error| error.to_string())
}

#[test]
fn the_labs_cluster_is_read() {
    let file = "../../labs/fargate-serverless/cluster.yaml";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).expect("the lab is there");
    let ClusterConfig { region, cluster, warnings } = load(&text, "cluster.yaml").expect("valid");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((region.as_str(), cluster.name.as_str()), ("ap-northeast-2", "fargate-serverless"));
    let subnets: Vec<(&str, bool)> = cluster
        .subnets
        .iter()
        .map(|subnet| (subnet.spec.cidr_block.as_str(), subnet.spec.public))
        .collect();
    assert_eq!(
        subnets,
        [
            ("10.10.0.0/20", false),
            ("10.10.16.0/20", false),
            ("10.10.32.0/20", false),
            ("10.10.48.0/24", true),
            ("10.10.49.0/24", true),
            ("10.10.50.0/24", true),
        ]
    );
    let names: Vec<(&str, Option<&str>)> = cluster
        .profiles
        .iter()
        .map(|profile| (profile.spec.name.as_str(), profile.metadata.name.as_deref()))
        .collect();
    let object = object_name("study_wildcard");
    assert_eq!(
        names,
        [("study_wildcard", Some(object.as_str())), ("kube-system", Some("kube-system"))]
    );
    assert!(object.starts_with("study-wildcard-"), "{object}");
    let dns = cluster.core_dns.expect("the add-on");
    assert!(dns.on_fargate);
    assert_eq!((dns.requests.cpu.as_str(), dns.requests.memory.as_str()), ("0.25", "256M"));
}

#[test]
fn subnets_are_eksctls_unless_the_file_names_them() {
    assert_eq!(read("").expect("valid").cluster.subnets, []);
    let cluster =
        read("vpc: {cidr: 10.20.0.0/16}\navailabilityZones: [ap-northeast-2c, ap-northeast-2a]\n")
            .expect("valid")
            .cluster;
    let subnets: Vec<String> = cluster
        .subnets
        .iter()
        .map(|subnet| {
            let kind = if subnet.spec.public { "public" } else { "private" };
            format!("{} {} {kind}", subnet.spec.cidr_block, subnet.spec.zone)
        })
        .collect();
    assert_eq!(
        subnets,
        [
            "10.20.0.0/19 ap-northeast-2c public",
            "10.20.32.0/19 ap-northeast-2a public",
            "10.20.64.0/19 ap-northeast-2c private",
            "10.20.96.0/19 ap-northeast-2a private",
        ]
    );
}

#[test]
fn profiles_may_name_subnets_as_the_file_does() {
    let cluster = read(
        "vpc:
  subnets:
    private:
      one: {id: subnet-1, az: ap-northeast-2a, cidr: 10.0.0.0/24}
iam: {fargatePodExecutionRoleARN: 'arn:aws:iam::1:role/mine'}
fargateProfiles:
- {name: a, selectors: [{namespace: a}], subnets: [one]}
- {name: b, selectors: [{namespace: b, labels: {k: v}}], subnets: [subnet-1], podExecutionRoleARN: 'arn:aws:iam::1:role/own'}
",
    )
    .expect("valid")
    .cluster;
    for profile in &cluster.profiles {
        assert_eq!(profile.spec.subnets, ["subnet-1"]);
        assert_eq!(profile.spec.cluster_name.as_deref(), Some("demo"));
    }
    let roles: Vec<Option<&str>> = cluster
        .profiles
        .iter()
        .map(|profile| profile.spec.pod_execution_role_arn.as_deref())
        .collect();
    assert_eq!(roles, [Some("arn:aws:iam::1:role/mine"), Some("arn:aws:iam::1:role/own")]);
    let generated =
        read("fargateProfiles: [{name: a, selectors: [{namespace: a}]}]\n").expect("valid");
    let role = generated.cluster.profiles[0].spec.pod_execution_role_arn.clone();
    assert_eq!(role.as_deref(), Some(generated_role("demo").as_str()));
}

#[test]
fn node_groups_are_as_eksctl_would_make_them() {
    let cluster = read(
        "vpc: {cidr: 10.20.0.0/16}
managedNodeGroups:
- {name: plain}
- name: web
  instanceTypes: [m5.large, m5a.large]
  spot: true
  desiredCapacity: 3
  maxSize: 6
  minSize: 1
  labels: {tier: web}
  taints: [{key: dedicated, value: web, effect: NoSchedule}]
  privateNetworking: true
  availabilityZones: [ap-northeast-2b]
  nodeRepairConfig: {enabled: true}
- {name: arm, instanceType: c6g.large, maxSize: 1, volumeSize: 30}
",
    )
    .expect("valid")
    .cluster;
    let [plain, web, arm] = &cluster.node_groups[..] else { panic!("three groups") };
    let zones = |group: &Nodegroup| -> Vec<(String, bool)> {
        let of = |id: &String| cluster.subnets.iter().find(|subnet| vpc::id(subnet) == *id);
        let subnets = group.spec.subnets.iter().filter_map(of);
        subnets.map(|subnet| (subnet.spec.zone.clone(), subnet.spec.public)).collect()
    };
    let sizes = |group: &Nodegroup| {
        let sizes = group.sizes();
        (sizes.min, sizes.desired, sizes.max)
    };
    assert_eq!(plain.spec.instance_types, ["m5.large"]);
    assert_eq!((sizes(plain), plain.spec.disk_size), ((2, 2, 2), Some(80)));
    assert_eq!(zones(plain).len(), 3);
    assert!(zones(plain).iter().all(|(_, is_public)| *is_public));
    assert_eq!(plain.spec.labels["alpha.eksctl.io/nodegroup-name"], "plain");
    assert_eq!((sizes(web), web.is_spot()), ((1, 3, 6), true));
    assert_eq!(zones(web), [("ap-northeast-2b".to_owned(), false)]);
    assert_eq!(web.spec.taints[0].effect, "NO_SCHEDULE");
    assert_eq!(web.spec.node_repair_config.as_ref().and_then(|config| config.enabled), Some(true));
    assert_eq!(
        (sizes(arm), arm.spec.ami_type.as_deref()),
        ((1, 1, 1), Some("AL2023_ARM_64_STANDARD"))
    );
}

#[test]
fn auto_mode_is_on_with_the_pools_that_are_named_or_both() {
    let auto_mode = |text: &str| read(text).expect("valid").cluster.auto_mode;
    assert_eq!(auto_mode(""), None);
    assert_eq!(auto_mode("autoModeConfig: {enabled: false}\n"), None);
    let both = auto_mode("autoModeConfig: {enabled: true}\n").expect("it is on");
    assert_eq!(both.node_pools, ["general-purpose", "system"]);
    assert!(both.node_role_arn.contains("role/eksctl-demo-cluster-AutoModeNodeRole-"));
    assert!(!both.with_karpenter);
    let one = auto_mode(
        "karpenter: {version: 1.9.0}\nautoModeConfig: {enabled: true, nodePools: [system], nodeRoleARN: arn:aws:iam::1:role/own}\n",
    )
    .expect("it is on");
    assert_eq!(one.node_pools, ["system"]);
    assert_eq!(one.node_role_arn, "arn:aws:iam::1:role/own");
    assert!(one.with_karpenter);
    let none = auto_mode("autoModeConfig: {enabled: true, nodePools: []}\n").expect("it is on");
    assert_eq!(none.node_pools, [""; 0]);
}

#[test]
fn what_has_no_effect_is_told() {
    let warnings = read(
        "iam: {withOIDC: true}
iamIdentityMappings: []
cloudWatch: {clusterLogging: {enableTypes: ['*']}}
autoModeConfig: {enabled: true, pools: 2}
managedNodeGroup: []
managedNodeGroups:
- {name: ng, instanceType: m5.large, desiredCapacity: 2, minSize: 1, maxSize: 10, iam: {}, spotted: true}
fargateProfiles:
- {name: a, selectors: [{namespace: a, label: {}}]}
",
    )
    .expect("valid")
    .warnings;
    assert_eq!(
        warnings,
        [
            "c.yaml:14:47: there is no field fargateProfiles[0].selectors[0].label",
            "c.yaml:12:101: there is no field managedNodeGroups[0].spotted",
            "c.yaml:9:40: there is no field autoModeConfig.pools",
            "c.yaml:10:19: there is no field managedNodeGroup",
        ]
    );
    let other = format!("{HEAD}  version: '1.30'\n  owner: me\n");
    assert_eq!(
        load(&other, "c.yaml").expect("valid").warnings,
        [
            "c.yaml:4:3: metadata.version is 1.30; the API here is Kubernetes 1.36",
            "c.yaml:7:10: there is no field metadata.owner",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (rest, expected) in [
        ("vpc: 5\n", "c.yaml:6:6: vpc is a map, not a number"),
        (
            "vpc: {cidr: 10.0.0.1/16}\n",
            "c.yaml:6:13: vpc.cidr: 10.0.0.1/16 is no block of addresses; the block around it is 10.0.0.0/16",
        ),
        (
            "vpc: {subnets: {private: {a: {cidr: 10.0.0.0/24}}}}\n",
            "c.yaml:6:30: vpc.subnets.private.a is in no zone of the region: a; name one of ap-northeast-2a, ap-northeast-2b, ap-northeast-2c, ap-northeast-2d as its az",
        ),
        (
            "vpc:\n  cidr: 10.1.0.0/16\n  subnets: {private: {ap-northeast-2a: {cidr: 10.0.0.0/24}}}\n",
            "c.yaml:8:12: vpc.subnets has 10.0.0.0/24, which is not in 10.1.0.0/16",
        ),
        (
            "vpc:\n  subnets: {private: {a: {id: s1, az: ap-northeast-2a, cidr: 10.0.0.0/24}, b: {id: s2, az: ap-northeast-2b, cidr: 10.0.0.0/25}}}\n",
            "c.yaml:7:12: vpc.subnets has s2 (10.0.0.0/25) and s1 (10.0.0.0/24), which overlap",
        ),
        (
            "availabilityZones: [ap-northeast-2a, eu-west-1a]\n",
            "c.yaml:6:38: availabilityZones: eu-west-1a is no zone of ap-northeast-2; there are ap-northeast-2a, ap-northeast-2b, ap-northeast-2c, ap-northeast-2d",
        ),
        ("fargateProfiles:\n- selectors: []\n", "c.yaml:7:3: fargateProfiles[0].name is missing"),
        (
            "fargateProfiles:\n- name: a\n  selectors: [{namespace: a}, {namespace: a}]\n",
            "c.yaml:8:31: fargateProfiles[0].selectors[1]: is the same as selectors[0]",
        ),
        (
            "fargateProfiles:\n- name: eks-a\n  selectors: [{namespace: a}]\n",
            "c.yaml:7:9: fargateProfiles[0].name: \"eks-a\" begins with eks-, which AWS keeps to itself",
        ),
        (
            "fargateProfiles:\n- {name: a, selectors: [{namespace: a}], subnets: [x]}\n",
            "c.yaml:7:52: fargateProfiles[0].subnets[0]: The subnet ID 'x' does not exist",
        ),
        (
            "fargateProfiles:\n- {name: a, selectors: [{namespace: a}]}\n- {name: a, selectors: [{namespace: b}]}\n",
            "c.yaml:8:3: fargateProfiles[1] is a second profile named a",
        ),
        (
            "managedNodeGroups:\n- {name: a, minSize: 3, maxSize: 2}\n",
            "c.yaml:7:3: managedNodeGroups[0] needs minSize <= desiredCapacity <= maxSize",
        ),
        (
            "managedNodeGroups:\n- {name: a, instanceType: m5.lage}\n",
            "c.yaml:7:27: managedNodeGroups[0].instanceType: ap-northeast-2 sells no m5.lage",
        ),
        (
            "managedNodeGroups:\n- {name: a, taints: [{key: k, effect: Never}]}\n",
            "c.yaml:7:39: managedNodeGroups[0].taints[0].effect is Never; a taint has NoSchedule, NoExecute or PreferNoSchedule",
        ),
        (
            "managedNodeGroups:\n- {name: a}\n- {name: a}\n",
            "c.yaml:8:3: managedNodeGroups[1] is a second node group named a",
        ),
        (
            "managedNodeGroups:\n- {name: a, amiFamily: WindowsServer2022CoreContainer}\n",
            "c.yaml:7:24: managedNodeGroups[0].amiFamily is WindowsServer2022CoreContainer; nodes here can be AmazonLinux2023, AmazonLinux2, Bottlerocket or Ubuntu's",
        ),
        (
            "managedNodeGroups:\n- {name: a, minSize: many}\n",
            "c.yaml:7:22: managedNodeGroups[0].minSize is a count, not a text",
        ),
        (
            "addons: [{name: coredns, configurationValues: '{'}]\n",
            "c.yaml:6:10: addons[0].configurationValues is neither JSON nor YAML",
        ),
        (
            "autoModeConfig: {enabled: true, nodePools: [gpu]}\n",
            "c.yaml:6:45: autoModeConfig.nodePools: there is no gpu, only general-purpose and system",
        ),
        (
            "autoModeConfig: {enabled: true, nodePools: [system, system]}\n",
            "c.yaml:6:53: autoModeConfig.nodePools: system is named twice",
        ),
        (
            "autoModeConfig: {enabled: false, nodePools: [system]}\n",
            "c.yaml:6:17: autoModeConfig.enabled must be true for nodePools and nodeRoleARN to mean something",
        ),
        (
            "autoModeConfig: {enabled: true, nodePools: [], nodeRoleARN: arn}\n",
            "c.yaml:6:17: autoModeConfig.nodeRoleARN is the role of the nodes of nodePools, of which there are none",
        ),
        (
            "autoModeConfig: {enabled: yes please}\n",
            "c.yaml:6:27: autoModeConfig.enabled is true or false, not a text",
        ),
        ("addons: coredns\n", "c.yaml:6:9: addons is a list, not a text"),
    ] {
        assert_eq!(read(rest).expect_err("it is wrong"), expected);
    }
    for (text, expected) in [
        ("kind: ClusterConfig\n", "c.yaml:1:1: apiVersion is missing"),
        (
            "apiVersion: v1\nkind: ClusterConfig\n",
            "c.yaml:1:13: apiVersion is eksctl.io/v1alpha5, not v1",
        ),
        (
            "apiVersion: eksctl.io/v1alpha5\nkind: Cluster\n",
            "c.yaml:2:7: kind is ClusterConfig, not Cluster",
        ),
        ("- a\n", "c.yaml:1:1: the document is a map, not a list"),
        (
            "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata: {name: 5x, region: us-east-1}\n",
            "c.yaml:3:18: metadata.name is \"5x\"; a name has letters, digits and '-', begins with a letter, and has at most 100 characters",
        ),
    ] {
        let error = load(text, "c.yaml").expect_err("it is wrong").to_string();
        assert_eq!(error, expected);
    }
    let region = load(&HEAD.replace("ap-northeast-2", "ap-northeast-9"), "c.yaml");
    let told = region.expect_err("it is wrong").to_string();
    assert!(told.starts_with("c.yaml:5:11: metadata.region: unknown region"), "{told}");
    let syntax = load("a: [", "c.yaml").expect_err("it is wrong");
    assert!(syntax.line > 0 && !syntax.says.contains('\n'), "{syntax}");
}

#[test]
fn annotations_of_wharfs_own_are_read() {
    let with = |annotations: &str| read(&format!("  annotations: {{{annotations}}}\n"));
    let quota = "wharf.dev/fargate-vcpu-quota: '6', wharf.dev/fargate-patch-every: 168h, a/b: c";
    let config = with(quota).expect("valid");
    assert_eq!(config.cluster.fargate_vcpus_max, Some(6));
    let week = std::time::Duration::from_hours(168);
    assert_eq!(config.cluster.fargate_patch_every, Some(week));
    assert_eq!(config.warnings, Vec::<String>::new());
    for (wrong, expected) in [
        ("wharf.dev/fargate-vcpu-quota: six", "\"six\" is no number of vCPUs"),
        ("wharf.dev/fargate-patch-every: 5m", "\"5m\" is no span of an hour or more, such as 168h"),
    ] {
        let error = with(wrong).expect_err("wrong");
        assert!(error.ends_with(expected), "{error}");
    }
    let warnings = with("wharf.dev/else: x").expect("valid").warnings;
    assert!(warnings[0].contains("wharf.dev/else] has no effect"), "{warnings:?}");
}

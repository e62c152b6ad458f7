//! The rules of EC2NodeClass beside its schema.
//!
//! Upstream's rules on exclusive `id` and `name` in selector terms are kept as they are: they refuse
//! a list only when every term of it is wrong, and with that an empty one.

use serde_json::Value;

use super::super::ec2nodeclass::ALIAS_FAMILIES;
use super::FieldError;
use super::rules::{At, Outcome, Rules};

/// The rules of one field of the spec.
type Section = fn(&mut Rules, &At<'_>);

/// What breaks a rule.
pub(super) fn rules(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut rules = Rules(Vec::new());
    let Some(spec) = At::root(new, old).field("spec") else { return rules.0 };
    identity_and_family(&mut rules, &spec);
    let sections: [(&str, Section); 11] = [
        ("amiSelectorTerms", ami_terms),
        ("blockDeviceMappings", block_devices),
        ("capacityReservationSelectorTerms", capacity_reservation_terms),
        ("connectionTracking", connection_tracking),
        ("instanceProfile", |rules, at| not_empty(rules, at, "instanceProfile")),
        ("networkInterfaces", network_interfaces),
        ("placementGroupSelector", placement_group),
        ("role", |rules, at| not_empty(rules, at, "role")),
        ("securityGroupSelectorTerms", security_group_terms),
        ("subnetSelectorTerms", subnet_terms),
        ("tags", tags),
    ];
    for (name, section) in sections {
        if let Some(at) = spec.field(name)
            && !at.is_unchanged()
        {
            section(&mut rules, &at);
        }
    }
    rules.0
}

fn has(term: &Value, name: &str) -> bool {
    term.get(name).is_some()
}

fn has_any(term: &Value, names: &[&str]) -> bool {
    names.iter().any(|name| has(term, name))
}

fn list<'a>(at: &At<'a>) -> &'a [Value] {
    at.value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn not_empty(rules: &mut Rules, at: &At<'_>, name: &str) {
    rules.check(at, at.value.as_str() != Some(""), &format!("{name} cannot be empty"));
}

fn identity_and_family(rules: &mut Rules, spec: &At<'_>) {
    rules.check(
        spec,
        has(spec.value, "role") != has(spec.value, "instanceProfile"),
        "must specify exactly one of ['role', 'instanceProfile']",
    );
    let family = spec.value.get("amiFamily").and_then(Value::as_str);
    let terms = spec.field("amiSelectorTerms");
    let aliases: Vec<&str> = terms
        .iter()
        .flat_map(list)
        .filter_map(|term| term.get("alias").and_then(Value::as_str))
        .collect();
    for (alias_family, named) in ALIAS_FAMILIES {
        let is_used = aliases.iter().any(|alias| alias.split('@').next() == Some(alias_family));
        let fits = family.is_none_or(|family| family == named || family == "Custom");
        rules.check(
            spec,
            !is_used || fits,
            &format!(
                "if set, amiFamily must be '{named}' or 'Custom' when using {} {named} alias",
                if named.starts_with('A') { "an" } else { "a" }
            ),
        );
    }
    rules.check(
        spec,
        !aliases.is_empty() || family.is_some(),
        "must specify amiFamily if amiSelectorTerms does not contain an alias",
    );
}

fn ami_terms(rules: &mut Rules, at: &At<'_>) {
    let terms = list(at);
    rules.check(
        at,
        terms.iter().all(|term| has_any(term, &["tags", "id", "name", "alias", "ssmParameter"])),
        "expected at least one, got none, ['tags', 'id', 'name', 'alias', 'ssmParameter']",
    );
    for (field, others) in
        [("id", ["alias", "tags", "name", "owner"]), ("alias", ["id", "tags", "name", "owner"])]
    {
        rules.check(
            at,
            !terms.iter().any(|term| has(term, field) && has_any(term, &others)),
            &format!(
                "'{field}' is mutually exclusive, cannot be set with a combination of other fields \
                 in amiSelectorTerms"
            ),
        );
    }
    rules.check(
        at,
        terms.len() == 1 || !terms.iter().any(|term| has(term, "alias")),
        "'alias' is mutually exclusive, cannot be set with a combination of other amiSelectorTerms",
    );
    for term in at.items() {
        if let Some(alias) = term.field("alias") {
            alias_form(rules, &alias);
        }
        selector_tags(rules, &term);
    }
}

fn alias_form(rules: &mut Rules, at: &At<'_>) {
    let text = at.value.as_str().unwrap_or_default();
    let mut parts = text.split('@');
    let (family, version) = (parts.next().unwrap_or_default(), parts.next());
    let is_formed = text.split_once('@').is_some_and(|(family, version)| {
        !family.is_empty()
            && family.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !version.is_empty()
            && !version.contains('\n')
    });
    rules.check(
        at,
        is_formed,
        "'alias' is improperly formatted, must match the format 'family@version'",
    );
    rules.check(
        at,
        ALIAS_FAMILIES.iter().any(|(alias, _)| *alias == family),
        "family is not supported, must be one of the following: 'al2', 'al2023', 'bottlerocket', \
         'windows2019', 'windows2022', 'windows2025'",
    );
    let is_windows = matches!(family, "windows2019" | "windows2022" | "windows2025");
    rules.check(
        at,
        match version {
            _ if !is_windows => Outcome::Holds,
            Some(version) => (version == "latest").into(),
            None => Outcome::Failed("index out of bounds: 1"),
        },
        "windows families may only specify version 'latest'",
    );
}

fn selector_tags(rules: &mut Rules, term: &At<'_>) {
    let Some(at) = term.field("tags") else { return };
    let Some(tags) = at.value.as_object() else { return };
    let all_set = tags.iter().all(|(key, value)| !key.is_empty() && value.as_str() != Some(""));
    rules.check(&at, all_set, "empty tag keys or values aren't supported");
}

fn subnet_terms(rules: &mut Rules, at: &At<'_>) {
    let terms = list(at);
    rules.check(at, !terms.is_empty(), "subnetSelectorTerms cannot be empty");
    rules.check(
        at,
        terms.iter().all(|term| has_any(term, &["tags", "id"])),
        "expected at least one, got none, ['tags', 'id']",
    );
    rules.check(
        at,
        !terms.iter().all(|term| has(term, "id") && has(term, "tags")),
        "'id' is mutually exclusive, cannot be set with a combination of other fields in a subnet \
         selector term",
    );
    at.items().for_each(|term| selector_tags(rules, &term));
}

fn security_group_terms(rules: &mut Rules, at: &At<'_>) {
    let terms = list(at);
    rules.check(at, !terms.is_empty(), "securityGroupSelectorTerms cannot be empty");
    rules.check(
        at,
        terms.iter().all(|term| has_any(term, &["tags", "id", "name"])),
        "expected at least one, got none, ['tags', 'id', 'name']",
    );
    for (field, others) in [("id", ["tags", "name"]), ("name", ["tags", "id"])] {
        rules.check(
            at,
            !terms.iter().all(|term| has(term, field) && has_any(term, &others)),
            &format!(
                "'{field}' is mutually exclusive, cannot be set with a combination of other fields \
                 in a security group selector term"
            ),
        );
    }
    at.items().for_each(|term| selector_tags(rules, &term));
}

fn capacity_reservation_terms(rules: &mut Rules, at: &At<'_>) {
    let terms = list(at);
    rules.check(
        at,
        terms.iter().all(|term| has_any(term, &["tags", "id", "instanceMatchCriteria"])),
        "expected at least one, got none, ['tags', 'id', 'instanceMatchCriteria']",
    );
    rules.check(
        at,
        !terms.iter().all(|term| {
            has(term, "id") && has_any(term, &["tags", "ownerID", "instanceMatchCriteria"])
        }),
        "'id' is mutually exclusive, cannot be set along with other fields in a capacity \
         reservation selector term",
    );
    at.items().for_each(|term| selector_tags(rules, &term));
}

fn placement_group(rules: &mut Rules, at: &At<'_>) {
    rules.check(
        at,
        has_any(at.value, &["name", "id"]),
        "expected at least one, got none, ['name', 'id']",
    );
    rules.check(
        at,
        !(has(at.value, "name") && has(at.value, "id")),
        "'name' and 'id' are mutually exclusive",
    );
}

fn connection_tracking(rules: &mut Rules, at: &At<'_>) {
    rules.check(
        at,
        has_any(at.value, &["tcpEstablishedTimeout", "udpStreamTimeout", "udpTimeout"]),
        "at least one of tcpEstablishedTimeout, udpStreamTimeout, or udpTimeout must be set",
    );
}

fn block_devices(rules: &mut Rules, at: &At<'_>) {
    let roots = list(at).iter().filter(|disk| disk.get("rootVolume") == Some(&Value::Bool(true)));
    rules.check(at, roots.count() <= 1, "must have only one blockDeviceMappings with rootVolume");
    for volume in at.items().filter_map(|disk| disk.field("ebs")) {
        rules.check(
            &volume,
            has_any(volume.value, &["snapshotID", "volumeSize"]),
            "snapshotID or volumeSize must be defined",
        );
        let snapshot = volume.value.get("snapshotID").and_then(Value::as_str);
        rules.check(
            &volume,
            !has(volume.value, "volumeInitializationRate")
                || snapshot.is_some_and(|snapshot| !snapshot.is_empty()),
            "snapshotID must be set when volumeInitializationRate is set",
        );
    }
}

fn network_interfaces(rules: &mut Rules, at: &At<'_>) {
    let interfaces = list(at);
    let card = |interface: &Value| interface.get("networkCardIndex").and_then(Value::as_i64);
    let device = |interface: &Value| interface.get("deviceIndex").and_then(Value::as_i64);
    let is = |interface: &Value, kind: &str| {
        interface.get("interfaceType").and_then(Value::as_str) == Some(kind)
    };
    let is_primary = |interface: &Value| {
        card(interface) == Some(0) && device(interface) == Some(0) && is(interface, "interface")
    };
    rules.check(
        at,
        interfaces.is_empty() || interfaces.iter().any(is_primary),
        "networkInterfaces must include a primary interface with interfaceType='interface'",
    );
    let is_unique = |interface: &Value| {
        let on_card = || interfaces.iter().filter(|other| card(other) == card(interface));
        on_card().filter(|other| device(other) == device(interface)).count() == 1
            && (!is(interface, "efa-only")
                || on_card().filter(|other| is(other, "efa-only")).count() == 1)
    };
    rules.check(
        at,
        interfaces.iter().all(is_unique),
        "networkInterfaces must not have duplicate networkCardIndex and deviceIndex pairs, and can \
         have at most one efa device per network card",
    );
}

fn tags(rules: &mut Rules, at: &At<'_>) {
    let Some(tags) = at.value.as_object() else { return };
    rules.check(at, tags.keys().all(|key| !key.is_empty()), "empty tag keys aren't supported");
    let mut restrict = |name: &str, is_restricted: &dyn Fn(&str) -> bool| {
        rules.check(
            at,
            !tags.keys().any(|key| is_restricted(key)),
            &format!("tag contains a restricted tag matching {name}"),
        );
    };
    restrict("eks:eks-cluster-name", &|key| key == "eks:eks-cluster-name");
    restrict("kubernetes.io/cluster/", &|key| key.starts_with("kubernetes.io/cluster"));
    for name in
        ["karpenter.sh/nodepool", "karpenter.sh/nodeclaim", "karpenter.k8s.aws/ec2nodeclass"]
    {
        restrict(name, &|key| key == name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::defaults;
    use super::super::ec2_node_class;

    fn refused(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut class = json!({
            "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": {"name": "default"},
            "spec": {
                "role": "KarpenterNodeRole",
                "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
                "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}]
            }
        });
        change(&mut class["spec"]);
        defaults::ec2_node_class(&mut class);
        let errors: Vec<String> =
            ec2_node_class(&class, None).iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{class}");
    }

    /// Sets one field and expects one broken rule at a path.
    fn rule(field: &str, value: Value, path: &str, message: &str) {
        refused(|spec| spec[field] = value, &[&format!("{path}: Invalid value: {message}")]);
    }

    #[test]
    fn usual_classes_are_accepted() {
        refused(|_| {}, &[]);
        refused(
            |spec| {
                *spec = json!({
                    "instanceProfile": "profile", "amiFamily": "AL2023",
                    "amiSelectorTerms": [{"id": "ami-0123"}, {"name": "mine", "owner": "self"}, {"ssmParameter": "/a/b"}],
                    "subnetSelectorTerms": [{"id": "subnet-01"}, {"tags": {"a": "*"}}],
                    "securityGroupSelectorTerms": [{"name": "nodes"}, {"id": "sg-01"}],
                    "capacityReservationSelectorTerms": [{"id": "cr-01"}, {"tags": {"a": "b"}, "ownerID": "012345678901"}],
                    "tags": {"team": "a"}, "userData": "#!/bin/sh", "detailedMonitoring": true,
                    "kubelet": {"maxPods": 42, "kubeReserved": {"cpu": "1"}},
                    "blockDeviceMappings": [{"deviceName": "/dev/xvda", "rootVolume": true, "ebs": {"volumeSize": "100Gi", "volumeType": "gp3", "iops": 3000}},
                        {"ebs": {"snapshotID": "snap-1", "volumeInitializationRate": 200}}],
                    "instanceStorePolicy": "RAID0", "placementGroupSelector": {"id": "pg-01"},
                    "networkInterfaces": [{"networkCardIndex": 0, "deviceIndex": 0, "interfaceType": "interface"},
                        {"networkCardIndex": 0, "deviceIndex": 1, "interfaceType": "efa-only"}],
                    "connectionTracking": {"udpTimeout": 30}, "cpuOptions": {"nestedVirtualization": "enabled"},
                    "ipPrefixCount": 0, "metadataOptions": {"httpTokens": "optional"}
                });
            },
            &[],
        );
    }

    #[test]
    fn identity_is_a_role_or_a_profile() {
        const BOTH: &str =
            "spec: Invalid value: must specify exactly one of ['role', 'instanceProfile']";
        refused(|spec| spec["instanceProfile"] = json!("p"), &[BOTH]);
        refused(
            |spec| {
                spec.as_object_mut().unwrap().remove("role");
            },
            &[BOTH],
        );
        rule("role", json!(""), "spec.role", "\"\": role cannot be empty");
        refused(
            |spec| {
                spec.as_object_mut().unwrap().remove("role");
                spec["instanceProfile"] = json!("");
            },
            &["spec.instanceProfile: Invalid value: \"\": instanceProfile cannot be empty"],
        );
    }

    #[test]
    fn aliases_are_checked() {
        const FORM: &str =
            "'alias' is improperly formatted, must match the format 'family@version'";
        const FAMILY: &str = "family is not supported, must be one of the following: 'al2', 'al2023', 'bottlerocket', 'windows2019', 'windows2022', 'windows2025'";
        let alias = |alias: &str, expected: &[String]| {
            let lines: Vec<String> = expected
                .iter()
                .map(|message| format!("spec.amiSelectorTerms[0].alias: Invalid value: {message}"))
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            refused(|spec| spec["amiSelectorTerms"] = json!([{"alias": alias}]), &lines);
        };
        alias("bottlerocket@v1.10.0", &[]);
        alias("windows2025@latest", &[]);
        alias("al2023", &[format!("\"al2023\": {FORM}")]);
        alias("ubuntu@latest", &[format!("\"ubuntu@latest\": {FAMILY}")]);
        alias(
            "windows2022@v1",
            &["\"windows2022@v1\": windows families may only specify version 'latest'".to_owned()],
        );
        alias("windows2022", &[
            format!("\"windows2022\": {FORM}"),
            "\"string\": index out of bounds: 1 evaluating rule: windows families may only specify version 'latest'".to_owned(),
        ]);
    }

    #[test]
    fn the_family_must_fit_the_alias() {
        refused(|spec| spec["amiFamily"] = json!("Custom"), &[]);
        for (alias, family, expected) in [
            (
                "al2023@latest",
                "Bottlerocket",
                "spec: Invalid value: if set, amiFamily must be 'AL2023' or 'Custom' when using an AL2023 alias",
            ),
            (
                "al2@latest",
                "AL2023",
                "spec: Invalid value: if set, amiFamily must be 'AL2' or 'Custom' when using an AL2 alias",
            ),
            (
                "bottlerocket@latest",
                "AL2",
                "spec: Invalid value: if set, amiFamily must be 'Bottlerocket' or 'Custom' when using a Bottlerocket alias",
            ),
            (
                "windows2019@latest",
                "AL2",
                "spec: Invalid value: if set, amiFamily must be 'Windows2019' or 'Custom' when using a Windows2019 alias",
            ),
        ] {
            refused(
                |spec| {
                    spec["amiFamily"] = json!(family);
                    spec["amiSelectorTerms"] = json!([{"alias": alias}]);
                },
                &[expected],
            );
        }
        refused(
            |spec| spec["amiSelectorTerms"] = json!([{"id": "ami-1"}]),
            &[
                "spec: Invalid value: must specify amiFamily if amiSelectorTerms does not contain an alias",
            ],
        );
    }

    #[test]
    fn image_terms_exclude_each_other() {
        let terms = |terms: Value, message: &str| {
            refused(
                |spec| {
                    spec["amiFamily"] = json!("AL2023");
                    spec["amiSelectorTerms"] = terms;
                },
                &[&format!("spec.amiSelectorTerms: Invalid value: {message}")],
            );
        };
        terms(
            json!([{"owner": "self"}]),
            "expected at least one, got none, ['tags', 'id', 'name', 'alias', 'ssmParameter']",
        );
        terms(
            json!([{"id": "ami-1", "name": "n"}]),
            "'id' is mutually exclusive, cannot be set with a combination of other fields in amiSelectorTerms",
        );
        terms(
            json!([{"alias": "al2023@latest", "tags": {"a": "b"}}]),
            "'alias' is mutually exclusive, cannot be set with a combination of other fields in amiSelectorTerms",
        );
        terms(
            json!([{"alias": "al2023@latest"}, {"id": "ami-1"}]),
            "'alias' is mutually exclusive, cannot be set with a combination of other amiSelectorTerms",
        );
    }

    #[test]
    fn other_terms_and_selectors_are_checked() {
        let subnet = |terms, message| {
            rule("subnetSelectorTerms", terms, "spec.subnetSelectorTerms", message)
        };
        subnet(json!([{}]), "expected at least one, got none, ['tags', 'id']");
        subnet(
            json!([{"id": "subnet-1", "tags": {"a": "b"}}]),
            "'id' is mutually exclusive, cannot be set with a combination of other fields in a subnet selector term",
        );
        refused(
            |spec| spec["subnetSelectorTerms"] = json!([]),
            &[
                "spec.subnetSelectorTerms: Invalid value: subnetSelectorTerms cannot be empty",
                "spec.subnetSelectorTerms: Invalid value: 'id' is mutually exclusive, cannot be set with a combination of other fields in a subnet selector term",
            ],
        );
        let group = |terms, message| {
            rule("securityGroupSelectorTerms", terms, "spec.securityGroupSelectorTerms", message)
        };
        group(json!([{}]), "expected at least one, got none, ['tags', 'id', 'name']");
        group(
            json!([{"id": "sg-1", "tags": {"a": "b"}}]),
            "'id' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
        );
        group(
            json!([{"name": "n", "tags": {"a": "b"}}]),
            "'name' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
        );
        let reservation = |terms, message| {
            rule(
                "capacityReservationSelectorTerms",
                terms,
                "spec.capacityReservationSelectorTerms",
                message,
            )
        };
        reservation(
            json!([{"ownerID": "012345678901"}]),
            "expected at least one, got none, ['tags', 'id', 'instanceMatchCriteria']",
        );
        reservation(
            json!([{"id": "cr-1", "ownerID": "012345678901"}]),
            "'id' is mutually exclusive, cannot be set along with other fields in a capacity reservation selector term",
        );
        for field in [
            "subnetSelectorTerms",
            "securityGroupSelectorTerms",
            "capacityReservationSelectorTerms",
        ] {
            rule(
                field,
                json!([{"tags": {"a": ""}}]),
                &format!("spec.{field}[0].tags"),
                "empty tag keys or values aren't supported",
            );
        }
        let placement = |selector, message| {
            rule("placementGroupSelector", selector, "spec.placementGroupSelector", message)
        };
        placement(json!({}), "expected at least one, got none, ['name', 'id']");
        placement(json!({"name": "n", "id": "pg-1"}), "'name' and 'id' are mutually exclusive");
        rule(
            "connectionTracking",
            json!({}),
            "spec.connectionTracking",
            "at least one of tcpEstablishedTimeout, udpStreamTimeout, or udpTimeout must be set",
        );
    }

    #[test]
    fn disks_interfaces_and_tags_are_checked() {
        rule(
            "blockDeviceMappings",
            json!([{"rootVolume": true}, {"rootVolume": true}]),
            "spec.blockDeviceMappings",
            "must have only one blockDeviceMappings with rootVolume",
        );
        rule(
            "blockDeviceMappings",
            json!([{"ebs": {}}]),
            "spec.blockDeviceMappings[0].ebs",
            "snapshotID or volumeSize must be defined",
        );
        rule(
            "blockDeviceMappings",
            json!([{"ebs": {"volumeSize": "1Gi", "volumeInitializationRate": 100}}]),
            "spec.blockDeviceMappings[0].ebs",
            "snapshotID must be set when volumeInitializationRate is set",
        );
        let interface = |card: i32, device: i32, kind: &str| json!({"networkCardIndex": card, "deviceIndex": device, "interfaceType": kind});
        let interfaces =
            |list, message| rule("networkInterfaces", list, "spec.networkInterfaces", message);
        interfaces(
            json!([interface(0, 1, "interface")]),
            "networkInterfaces must include a primary interface with interfaceType='interface'",
        );
        const TWICE: &str = "networkInterfaces must not have duplicate networkCardIndex and deviceIndex pairs, and can have at most one efa device per network card";
        interfaces(json!([interface(0, 0, "interface"), interface(0, 0, "interface")]), TWICE);
        interfaces(
            json!([
                interface(0, 0, "interface"),
                interface(1, 0, "efa-only"),
                interface(1, 1, "efa-only")
            ]),
            TWICE,
        );
        for (tag, name) in [
            ("eks:eks-cluster-name", "eks:eks-cluster-name"),
            ("kubernetes.io/cluster/demo", "kubernetes.io/cluster/"),
            ("karpenter.sh/nodepool", "karpenter.sh/nodepool"),
            ("karpenter.sh/nodeclaim", "karpenter.sh/nodeclaim"),
            ("karpenter.k8s.aws/ec2nodeclass", "karpenter.k8s.aws/ec2nodeclass"),
        ] {
            rule(
                "tags",
                json!({tag: "x"}),
                "spec.tags",
                &format!("tag contains a restricted tag matching {name}"),
            );
        }
        rule("tags", json!({"": "x"}), "spec.tags", "empty tag keys aren't supported");
    }

    #[test]
    fn the_schema_is_enforced() {
        rule(
            "subnetSelectorTerms",
            json!([{"id": "vpc-1"}]),
            "spec.subnetSelectorTerms[0].id",
            "\"vpc-1\": spec.subnetSelectorTerms[0].id in body should match 'subnet-[0-9a-z]+'",
        );
        rule(
            "ipPrefixCount",
            json!(-1),
            "spec.ipPrefixCount",
            "-1: spec.ipPrefixCount in body should be greater than or equal to 0",
        );
        rule(
            "metadataOptions",
            json!({"httpPutResponseHopLimit": 65}),
            "spec.metadataOptions.httpPutResponseHopLimit",
            "65: spec.metadataOptions.httpPutResponseHopLimit in body should be less than or equal to 64",
        );
        rule(
            "connectionTracking",
            json!({"udpTimeout": 61}),
            "spec.connectionTracking.udpTimeout",
            "61: spec.connectionTracking.udpTimeout in body should be less than or equal to 60",
        );
        let pattern = "^((?:[1-9][0-9]{0,3}|[1-4][0-9]{4}|[5][0-8][0-9]{3}|59000)Gi|(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|[6][0-3][0-9]{3}|64000)G|([1-9]||[1-5][0-7]|58)Ti|([1-9]||[1-5][0-9]|6[0-3]|64)T)$";
        for size in ["20", "0Gi", "60000Gi"] {
            rule(
                "blockDeviceMappings",
                json!([{"ebs": {"volumeSize": size}}]),
                "spec.blockDeviceMappings[0].ebs.volumeSize",
                &format!(
                    "\"{size}\": spec.blockDeviceMappings[0].ebs.volumeSize in body should match '{pattern}'"
                ),
            );
        }
        refused(
            |spec| *spec = json!({"amiSelectorTerms": [], "amiFamily": "Ubuntu"}),
            &[
                "spec.securityGroupSelectorTerms: Required value",
                "spec.subnetSelectorTerms: Required value",
                "spec.amiFamily: Unsupported value: \"Ubuntu\": supported values: \"AL2\", \"AL2023\", \"Bottlerocket\", \"Custom\", \"Windows2019\", \"Windows2022\", \"Windows2025\"",
                "spec.amiSelectorTerms: Invalid value: 0: spec.amiSelectorTerms in body should have at least 1 items",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        );
    }
}

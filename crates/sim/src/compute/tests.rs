use std::path::Path;

use super::*;
use crate::scenario;

const WEB: &str = "  manifests:
    - inline:
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web, namespace: shop}
        spec:
          replicas: 6
          selector: {matchLabels: {app: web}}
          template:
            metadata: {labels: {app: web}}
            spec:
              containers:
                - {name: web, image: nginx, resources: {requests: {cpu: 500m, memory: 500Mi}}}
";

fn workload(spec: &str) -> Workload {
    let text = format!(
        "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: shop}}\nspec:\n{spec}"
    );
    let scenario = scenario::parse(&text, Path::new("shop.yaml")).expect("a scenario");
    Workload::of_scenario(scenario).expect("a workload")
}

fn compared(spec: &str, ways: &[Way]) -> Comparison {
    let options = Options {
        region: "ap-northeast-2".to_owned(),
        seed: 1,
        ways: ways.to_vec(),
        instance_type: None,
    };
    compare(&workload(spec), &options, &mut |_| {}).expect("a comparison")
}

#[test]
fn fargate_pays_for_sizes_and_karpenter_for_machines() {
    let ways = [Way::Fargate, Way::KarpenterOnDemand, Way::KarpenterSpot];
    let compared = compared(WEB, &ways);
    assert_eq!(compared.pods, 6);
    let [fargate, on_demand, spot] = compared.outcomes.as_slice() else { panic!("three ways") };
    // 0.5vCPU 1GB in Seoul: 0.02839 USD an hour each.
    assert_eq!(fargate.per_month.cents(), "$124.35");
    assert_eq!(fargate.machines[0].count, 6);
    assert_eq!(fargate.machines[0].instance_type, "0.5vCPU 1GB");
    assert_eq!(fargate.used, Some(Share { cpu: 1_000, memory: 488 }));
    let start = fargate.start.expect("it started");
    assert!(start.median.as_secs() >= 40 && start.max.as_secs() < 90, "{start:?}");
    let rate: i128 = on_demand
        .machines
        .iter()
        .map(|one| one.price.per_month().nano_dollars() * one.count as i128)
        .sum();
    assert_eq!(on_demand.per_month, Money::from_nano_dollars(rate), "a steady load costs its rate");
    assert!(spot.per_month < on_demand.per_month);
    assert!(on_demand.refused.is_empty() && fargate.refused.is_empty());
    assert_eq!(compared.cheapest().map(|best| best.way), Some(Way::KarpenterSpot));
}

#[test]
fn what_cannot_run_is_told_in_the_words_of_who_refuses_it() {
    let privileged = "  manifests:
    - inline:
        apiVersion: v1
        kind: Pod
        metadata: {name: root, namespace: shop}
        spec: {containers: [{name: c, image: alpine, securityContext: {privileged: true}}]}
    - inline:
        apiVersion: v1
        kind: Pod
        metadata: {name: gpu, namespace: shop}
        spec: {containers: [{name: c, image: cuda, resources: {limits: {nvidia.com/gpu: 1}}}]}
";
    let compared = compared(privileged, &[Way::Fargate, Way::KarpenterOnDemand]);
    let [fargate, karpenter] = compared.outcomes.as_slice() else { panic!("two ways") };
    let refused: Vec<(String, &str)> =
        fargate.refused.iter().map(|one| (one.workload.to_string(), one.reason.as_str())).collect();
    assert!(
        refused.contains(&(
            "shop/root".to_owned(),
            "Pod not supported on Fargate: invalid SecurityContext fields: Privileged"
        )),
        "{refused:?}"
    );
    // The pool of machines with accelerators is there because the workload asks for one.
    assert_eq!(karpenter.refused, []);
    assert!(
        karpenter.machines.iter().any(|one| one.instance_type.starts_with('g')),
        "{karpenter:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_every_form() {
    let ways = [Way::Fargate, Way::KarpenterSpot];
    let (first, second) = (compared(WEB, &ways), compared(WEB, &ways));
    assert_eq!(first.to_text(), second.to_text());
    assert_eq!(first.to_json(), second.to_json());
    assert_eq!(first.to_html(), second.to_html());
}

#[test]
fn a_page_escapes_what_it_is_given_and_needs_nothing_else() {
    let mut compared = compared(WEB, &[Way::KarpenterSpot]);
    compared.workload = "<script>alert('x')</script>".to_owned();
    let page = compared.to_html();
    assert!(!page.contains("<script"), "{page}");
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<tr").count(), page.matches("</tr>").count());
}

#[test]
fn a_scenario_costs_what_it_takes_over_its_time() {
    // Two pods for half of an hour: half of what they cost all the time.
    let half = format!(
        "  until: 1h\n{}  steps:\n    - {{at: 30m, delete: deployment/web, namespace: shop}}\n",
        WEB.replace("replicas: 6", "replicas: 2")
    );
    let compared = compared(&half, &[Way::Fargate]);
    let outcome = &compared.outcomes[0];
    let whole = 124.35 / 3.0;
    let month: f64 = outcome.per_month.cents().trim_start_matches('$').parse().expect("a number");
    assert!((0.46..0.5).contains(&(month / whole)), "{month} of {whole}");
    assert!(outcome.machines.is_empty());
}

#[test]
fn a_node_group_has_as_many_machines_as_the_workload_needs() {
    let compared = compared(WEB, &[Way::ManagedNodeGroup]);
    let group = &compared.outcomes[0];
    assert_eq!(group.refused, []);
    // Three pods of half a cpu fit on the 1930m of an m5.large.
    let [machines] = group.machines.as_slice() else { panic!("{:?}", group.machines) };
    assert_eq!((machines.count, machines.instance_type.as_str()), (2, "m5.large"));
    assert_eq!(group.per_month.nano_dollars(), machines.price.per_month().nano_dollars() * 2);
    let start = group.start.expect("it started");
    assert!(start.max.as_secs() < 30, "the machines are there before the pods: {start:?}");
}

#[test]
fn a_node_group_takes_the_smallest_machine_that_holds_every_pod() {
    let large = WEB.replace("500m", "9").replace("replicas: 6", "replicas: 1");
    let group = &compared(&large, &[Way::ManagedNodeGroup]).outcomes[0];
    assert_eq!(group.machines[0].instance_type, "m5.4xlarge");
    let named = Options {
        region: "ap-northeast-2".to_owned(),
        seed: 1,
        ways: vec![Way::ManagedNodeGroup],
        instance_type: Some("m5.lagre".to_owned()),
    };
    let error = compare(&workload(WEB), &named, &mut |_| {}).expect_err("a typo").to_string();
    assert!(
        error.starts_with("there is no instance type \"m5.lagre\" in ap-northeast-2"),
        "{error}"
    );
}

#[test]
fn auto_mode_costs_its_fee_besides_the_machines() {
    let auto = &compared(WEB, &[Way::AutoMode]).outcomes[0];
    assert_eq!(auto.refused, []);
    assert_eq!(auto.per_month, auto.machines_per_month + auto.fees_per_month);
    let share = auto.fees_per_month.nano_dollars() * 1_000 / auto.machines_per_month.nano_dollars();
    assert!((119..=121).contains(&share), "12% of the machines' price: {share}");
}

//! Autoscalers with each kubectl there is: made, told and described.

mod harness;

use std::path::Path;

use harness::{Wharf, kubectls, wait_for};
use serde_json::Value;

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: nginx, resources: {requests: {cpu: 200m}}}]
"#;

#[test]
fn autoscalers_are_made_and_told_as_upstreams() {
    let wharf = Wharf::ephemeral();
    wharf.kubectl().input("apply -f -", WEB).ok();
    for (version, binary) in kubectls() {
        harness::note(&format!("with kubectl {version}"));
        let kubectl = wharf.with_kubectl(Path::new(binary));
        let minor: u32 = version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0);
        let cpu = if minor >= 34 { "--cpu=50%" } else { "--cpu-percent=50" };
        let made = kubectl.ok(&format!("autoscale deployment web {cpu} --min=1 --max=10"));
        assert!(made.ends_with("horizontalpodautoscaler.autoscaling/web autoscaled\n"), "{made}");
        let table = kubectl.ok("get hpa");
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let header = ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"];
        assert_eq!(lines.next().expect("a header"), header);
        let row = lines.next().expect("a row");
        assert_eq!(row[..6], ["web", "Deployment/web", "cpu:", "<unknown>/50%", "1", "10"]);
        let described = wait_for("the first pass", || {
            let text = kubectl.ok("describe hpa web");
            if text.contains("SucceededGetScale") { Ok(text) } else { Err(text) }
        });
        for line in [
            "Reference:                                             Deployment/web",
            "  resource cpu on pods  (as a percentage of request):  <unknown> / 50%",
            "Deployment pods:                                       1 current / 0 desired",
        ] {
            assert!(described.contains(line), "{version}: {described}");
        }
        let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/web";
        let old: Value =
            serde_json::from_str(&kubectl.ok(&format!("get --raw {path}"))).expect("JSON");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        // By its full name an older version is given too. Of a short one (`hpa.v1.autoscaling`) kubectl
        // itself drops the version since 1.31, and asks for the preferred one.
        for name in ["v1", "v2"] {
            let full = format!("get horizontalpodautoscalers.{name}.autoscaling web -o yaml");
            let shown = kubectl.ok(&full);
            assert!(shown.starts_with(&format!("apiVersion: autoscaling/{name}\n")), "{shown}");
        }
        kubectl.ok("get all");
        kubectl.ok("delete hpa web");
    }
    let refused = wharf.kubectl().run("autoscale deployment web --cpu=50% --min=5 --max=3").fails();
    assert!(
        refused.contains("--max=MAXPODS must be larger or equal to --min=MINPODS"),
        "{refused}"
    );
}

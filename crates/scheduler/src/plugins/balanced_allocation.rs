//! NodeResourcesBalancedAllocation: prefers nodes whose resources the pod leaves more evenly used
//! than it finds them.

use compact_str::CompactString;
use smallvec::SmallVec;
use wharf_model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY};

use super::MAX_SCORE;
use super::node_resources_fit::ByClass;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

pub(crate) struct State<'a> {
    pod: &'a PodInfo,
    resources: &'a [CompactString],
    devices: ByClass<'a>,
}

type Fractions = SmallVec<[f64; 4]>;

impl<'a> State<'a> {
    /// `None` for a pod that asks for none of the resources: it changes no balance.
    pub(crate) fn new(
        pod: &'a PodInfo,
        resources: &'a [CompactString],
        snapshot: &'a Snapshot,
    ) -> Option<Self> {
        let asks = resources.iter().any(|name| pod.amounts.requests.get(name) != 0);
        asks.then(|| Self { pod, resources, devices: ByClass::new(pod, snapshot) })
    }

    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        let mut with = Fractions::new();
        let mut without = Fractions::new();
        for name in self.resources {
            let asked = self.pod.amounts.requests.get(name);
            let core = matches!(name.as_str(), CPU | MEMORY | EPHEMERAL_STORAGE);
            if asked == 0 && !core {
                continue;
            }
            let used = node.requested.get(name);
            let (capacity, used) = match core {
                true => (node.facts.allocatable.get(name), used),
                false => self.devices.of(name, node, used),
            };
            if capacity == 0 {
                continue;
            }
            with.push(fraction(used + asked, capacity));
            without.push(fraction(used, capacity));
        }
        let half = MAX_SCORE / 2;
        half + (half + balance(&with) - balance(&without)) / 2
    }
}

fn fraction(used: i64, capacity: i64) -> f64 {
    (used as f64 / capacity as f64).min(1.0)
}

/// How even the fractions are: 100 less their standard deviation in percent, cut to an integer.
fn balance(fractions: &[f64]) -> i64 {
    let deviation = match fractions {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        many => {
            let count = many.len() as f64;
            let mean = many.iter().sum::<f64>() / count;
            (many.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / count).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::profile::Plugin;
    use crate::testing::{pod, scores, sized};

    #[test]
    fn the_change_of_balance_is_scored() {
        let nodes = [sized("a", json!({"cpu": "4", "memory": "32Gi", "pods": "110"}))];
        let mut used = pod("r", json!({"cpu": "1500m", "memory": "10Gi"}));
        used.spec.as_mut().unwrap().node_name = Some("a".to_owned());
        let plugin = Plugin::NodeResourcesBalancedAllocation;
        let asked = pod("p", json!({"cpu": "500m", "memory": "2Gi"}));
        assert_eq!(scores(&nodes, std::slice::from_ref(&used), &asked, plugin), [73]);
        let small = pod("p", json!({"cpu": "100m", "memory": "500Mi"}));
        assert_eq!(scores(&nodes, &[], &small, plugin), [74]);
        assert_eq!(scores(&nodes, &[], &pod("p", json!({})), plugin), [0], "nothing to balance");
    }
}

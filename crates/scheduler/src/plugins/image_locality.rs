//! ImageLocality: rather nodes that already have the pod's images. Large images count more, and an
//! image counts by the share of the nodes that have it, lest everything gather on the few.

use k8s_openapi::api::core::v1::Pod;
use smallvec::SmallVec;

use super::MAX_SCORE;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::{Symbol, Symbols};

const MIB: i64 = 1024 * 1024;
/// Images that are smaller together than this count nothing.
const LEAST_BYTES: i64 = 23 * MIB;
/// The size per container that earns the full score.
const MOST_BYTES: i64 = 1000 * MIB;

/// Up to so many images of a pod, what a node holds of them is remembered: twice as many scores for
/// each one more are worked out per decision.
const TABULATED_MAX: usize = 4;

/// The images of a pod's init containers, containers and image volumes.
pub(crate) fn images_of(pod: &Pod, symbols: &mut Symbols) -> SmallVec<[Symbol; 2]> {
    let Some(spec) = pod.spec.as_ref() else { return SmallVec::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref());
    containers
        .map(|container| container.image.as_deref().unwrap_or_default())
        .chain(volumes.map(|image| image.reference.as_deref().unwrap_or_default()))
        .map(|name| symbols.intern(&normalized(name)))
        .collect()
}

/// A name without a tag means the tag `latest`.
fn normalized(name: &str) -> std::borrow::Cow<'_, str> {
    match (name.rfind(':'), name.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| slash < colon) => name.into(),
        _ => format!("{name}:latest").into(),
    }
}

/// The scorer for one pod.
pub(crate) struct State<'a> {
    images: &'a [Symbol],
    /// What each of them is worth where it is: its size times the share of nodes that have it.
    worth: SmallVec<[i64; 2]>,
    most: i64,
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo, snapshot: &Snapshot) -> Self {
        let nodes = snapshot.nodes().len();
        let worth = |name: &Symbol| {
            snapshot.images().get(*name).map_or(0, |state| {
                let share = f64::from(state.nodes) / nodes as f64;
                (state.size as f64 * share) as i64
            })
        };
        Self {
            images: &pod.images,
            worth: pod.images.iter().map(worth).collect(),
            most: MOST_BYTES.saturating_mul(pod.containers),
        }
    }

    #[inline]
    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        self.score_with(self.images.iter().map(|name| has(node, *name)))
    }

    /// Which of the pod's images the node has, as bits: all that the score takes from the node.
    pub(crate) fn held(&self, node: &NodeInfo) -> i64 {
        let bits = self.images.iter().map(|name| i64::from(has(node, *name)));
        bits.enumerate().map(|(place, bit)| bit << place).sum()
    }

    /// The score by what is held.
    pub(crate) fn by_held(&self) -> Box<[i64]> {
        let places = 0..self.images.len();
        let score = |held: u32| self.score_with(places.clone().map(|place| held >> place & 1 == 1));
        (0..1 << self.images.len()).map(score).collect()
    }

    fn score_with(&self, held: impl Iterator<Item = bool>) -> i64 {
        let worth = self.worth.iter().zip(held).filter(|(_, held)| *held);
        let bytes: i64 = worth.map(|(worth, _)| worth).sum();
        if bytes <= LEAST_BYTES || self.most <= LEAST_BYTES {
            return 0;
        }
        MAX_SCORE * (bytes.min(self.most) - LEAST_BYTES) / (self.most - LEAST_BYTES)
    }
}

fn has(node: &NodeInfo, image: Symbol) -> bool {
    node.facts.images.binary_search_by_key(&image, |(known, _)| *known).is_ok()
}

/// Whether the pod has so few images that there is a score for every choice of them.
pub(crate) fn is_tabulated(pod: &PodInfo) -> bool {
    pod.images.len() <= TABULATED_MAX
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::profile::Plugin;
    use crate::testing::{node, pod, scores};

    #[test]
    fn names_without_a_tag_mean_the_latest() {
        for (name, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("localhost:5000/nginx:1", "localhost:5000/nginx:1"),
            ("nginx@sha256:0123", "nginx@sha256:0123"),
        ] {
            assert_eq!(normalized(name), expected);
        }
    }

    #[test]
    fn images_count_by_size_and_by_the_share_of_nodes_that_have_them() {
        let nodes: Vec<_> = (0..20)
            .map(|index| {
                let mut node = node(&format!("n{index:02}"), json!({}), json!({}));
                let images = json!([{"names": ["app:latest"], "sizeBytes": 500 * MIB}]);
                if index < 10 {
                    node.status.as_mut().unwrap().images = serde_json::from_value(images).unwrap();
                }
                node
            })
            .collect();
        let mut asked = pod("p", json!({}));
        asked.spec.as_mut().unwrap().containers[0].image = Some("app".to_owned());
        let scores = scores(&nodes, &[], &asked, Plugin::ImageLocality);
        assert_eq!(scores[..10], [23; 10]);
        assert_eq!(scores[10..], [0; 10]);
    }
}

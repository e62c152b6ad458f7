//! The simulated EC2 behind the EBS CSI driver: where volumes can be made, and how long it takes.
//! The durations are modelled, see docs/model.md.

use std::time::Duration;

use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::ebs::Driver;
use wharf_model::labels::TOPOLOGY_ZONE;
use wharf_model::random::Random;

/// Milliseconds from asking for a volume until it is available: an empty volume takes EC2 a few
/// seconds.
const CREATE: (u64, u64) = (2_000, 4_000);
/// From asking for a deletion until the volume is gone.
const DELETE: (u64, u64) = (500, 1_500);
/// From asking for an attachment until the device is there.
const ATTACH: (u64, u64) = (2_000, 5_000);
/// From asking for a detachment until the volume is available again.
const DETACH: (u64, u64) = (2_000, 6_000);

/// What EC2 is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Create,
    Delete,
    Attach,
    Detach,
}

/// How long EC2 takes for a request about something, the same in every run.
pub(super) fn duration(request: Request, seed: u64, about: &str) -> Duration {
    let (low, high) = match request {
        Request::Create => CREATE,
        Request::Delete => DELETE,
        Request::Attach => ATTACH,
        Request::Detach => DETACH,
    };
    let mut random = Random::for_purpose(seed, &format!("ebs/{request:?}/{about}"));
    Duration::from_millis(random.between(low, high))
}

/// The zone labels that a class allows, or none if it allows all.
pub(super) fn allowed_zones<'c>(class: &'c StorageClass, driver: &Driver) -> Option<Vec<&'c str>> {
    let terms = class.allowed_topologies.as_deref().filter(|terms| !terms.is_empty())?;
    let zones = terms
        .iter()
        .flat_map(|term| term.match_label_expressions.iter().flatten())
        .filter(|expression| expression.key == driver.zone || expression.key == TOPOLOGY_ZONE)
        .flat_map(|expression| expression.values.iter().map(String::as_str))
        .collect();
    Some(zones)
}

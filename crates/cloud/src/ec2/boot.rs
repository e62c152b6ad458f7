//! How long the simulated EC2 takes, drawn once per launch and kept in the Instance.
//!
//! Every figure here is modelled, not measured by Wharf. What it is modelled on: an EKS node of
//! the Amazon Linux 2023 family takes about 35 to 45 s from the launch call to Ready; the pending
//! state lasts a few seconds; after registration the node waits for its network plugin; a
//! terminated instance is gone after 20 to 30 s. Draws are uniform.

use std::time::Duration;

use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;

/// Spans of a machine's life, each a lower and an upper bound in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootModel {
    /// From the launch request to EC2's answer.
    pub launch_call_ms: (u64, u64),
    /// From the answer to running.
    pub running_ms: (u64, u64),
    /// From the answer to the kubelet's registration.
    pub registration_ms: (u64, u64),
    /// From registration to Ready.
    pub ready_ms: (u64, u64),
    /// From the termination request to terminated.
    pub termination_ms: (u64, u64),
}

impl BootModel {
    /// EKS nodes of the Amazon Linux 2023 family.
    pub const AL2023: Self = Self {
        launch_call_ms: (1_200, 1_800),
        running_ms: (4_000, 6_000),
        registration_ms: (24_000, 34_000),
        ready_ms: (8_000, 12_000),
        termination_ms: (20_000, 30_000),
    };
}

/// What was drawn for one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draw {
    /// `i-` and 17 hexadecimal digits.
    pub(super) instance_id: String,
    /// Where in the subnet to look for a free address.
    pub(super) address_hint: u32,
    pub(super) running: Duration,
    pub(super) registration: Duration,
    pub(super) ready: Duration,
}

/// The draw for a launch token. A function of seed and token alone, so that a launch repeated
/// after a crash, when nothing of the first attempt was kept, gives the same machine.
pub(super) fn draw(model: &BootModel, seed: u64, token: &str) -> Draw {
    let mut random = Random::new(seed, fnv1a(token.as_bytes()));
    let instance_id = format!("i-0{}", random.hex(16));
    let address_hint = random.next_u32();
    let running = between(&mut random, model.running_ms);
    let registration = between(&mut random, model.registration_ms);
    let ready = between(&mut random, model.ready_ms);
    Draw { instance_id, address_hint, running, registration, ready }
}

/// Where in its subnet the machine with this token looks for a free address.
pub(super) fn address_hint(seed: u64, token: &str) -> u32 {
    Random::new(seed ^ fnv1a(b"address"), fnv1a(token.as_bytes())).next_u32()
}

/// How long EC2 takes to answer the launch request with this token.
pub(super) fn launch_call(model: &BootModel, seed: u64, token: &str) -> Duration {
    let mut random = Random::new(seed ^ fnv1a(b"launch call"), fnv1a(token.as_bytes()));
    between(&mut random, model.launch_call_ms)
}

/// When an instance whose termination was asked for at `asked` is gone.
pub(super) fn gone_at(model: &BootModel, seed: u64, instance_id: &str, asked: Time) -> Time {
    let mut random = Random::new(seed ^ fnv1a(b"termination"), fnv1a(instance_id.as_bytes()));
    asked + between(&mut random, model.termination_ms)
}

fn between(random: &mut Random, (low, high): (u64, u64)) -> Duration {
    // Microseconds, so that machines launched together do not come up in step.
    Duration::from_micros(random.between(low * 1_000, high * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_token_draws_the_same_machine() {
        let model = BootModel::AL2023;
        assert_eq!(draw(&model, 1, "a"), draw(&model, 1, "a"));
        assert_ne!(draw(&model, 1, "a").instance_id, draw(&model, 1, "b").instance_id);
        assert_ne!(draw(&model, 1, "a").instance_id, draw(&model, 2, "a").instance_id);
    }

    #[test]
    fn draws_keep_within_the_model() {
        let model = BootModel::AL2023;
        for token in 0..200 {
            let draw = draw(&model, 7, &token.to_string());
            let to_ready = (draw.registration + draw.ready).as_secs();
            assert!((4..=6).contains(&draw.running.as_secs()));
            assert!((32..=46).contains(&to_ready), "{to_ready}");
            assert_eq!(draw.instance_id.len(), "i-0088a4e1b9e73a3c1".len());
        }
    }
}

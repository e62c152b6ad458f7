//! From histograms to amounts: a percentile, a margin, how sure it is, and a least.

use super::histogram::power;
use super::state::State;
use super::{Amount, Amounts, Config, Estimate, amount};

const MINUTE_NANOS: f64 = 60e9;

/// The three estimates of a container.
pub(super) struct Estimated {
    pub(super) target: Amounts,
    pub(super) lower: Amounts,
    pub(super) upper: Amounts,
}

/// What a container should be given; `share` is its part of the pod's least.
pub(super) fn estimate(state: &State, config: &Config, share: f64) -> Estimated {
    let least = Amounts {
        cpu: amount(config.pod_minimum.cpu as f64 * share),
        memory: amount(config.pod_minimum.memory as f64 * share),
    };
    let cpu = |percentile| margin(amount(state.cpu.percentile(percentile) * 1000.0), config.margin);
    let memory = |percentile| margin(amount(state.memory.percentile(percentile)), config.margin);
    let sure = |estimate: &Estimate| confidence(state, estimate);
    let lower = |amount: Amount, confidence| {
        let factor = 1.0 + 0.001 / confidence;
        times(amount, 1.0 / power(factor, 2))
    };
    let upper = |amount: Amount, confidence| times(amount, 1.0 + 1.0 / confidence);
    let both = |cpu: Amount, memory: Amount| Amounts {
        cpu: cpu.max(least.cpu),
        memory: memory.max(least.memory),
    };
    let (cpu_sure, memory_sure) = (sure(&config.cpu), sure(&config.memory));
    Estimated {
        target: both(cpu(config.cpu.target), memory(config.memory.target)),
        lower: both(
            lower(cpu(config.cpu.lower), cpu_sure),
            lower(memory(config.memory.lower), memory_sure),
        ),
        upper: both(
            upper(cpu(config.cpu.upper), cpu_sure),
            upper(memory(config.memory.upper), memory_sure),
        ),
    }
}

fn times(base: Amount, factor: f64) -> Amount {
    amount(base as f64 * factor)
}

fn margin(base: Amount, fraction: f64) -> Amount {
    base.saturating_add(times(base, fraction))
}

/// How much history there is, by time and by number of samples; cpu's, also for memory.
fn confidence(state: &State, estimate: &Estimate) -> f64 {
    let span = match (state.first, state.last) {
        (Some(first), Some(last)) => last.as_nanos().saturating_sub(first.as_nanos()),
        _ => 0,
    };
    let interval = estimate.confidence_interval.as_nanos() as f64;
    // As many samples as there would be at one a minute.
    let by_count = state.samples as f64 / (interval / MINUTE_NANOS);
    (span as f64 / interval).min(by_count)
}

//! How large a micro-VM a pod gets: one of 74 pairs of vCPU and memory.
//!
//! Requests count, limits never do. The pod's own need is [`pod_requests`]: what the containers ask
//! for in sum, or the largest init container. To the memory come 256 MiB for the kubelet, kube-proxy
//! and containerd of the VM. The smallest row with enough vCPU that also has enough memory is taken,
//! and in it the smallest memory.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-pod-configuration.html>

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::PodSpec;
use wharf_model::resources::{CPU, MEMORY, pod_requests};

/// What the VM's own programs need of its memory.
pub const OVERHEAD_MIB: i64 = 256;
/// The reason of the condition of a pod that no VM is large enough for.
pub const TOO_LARGE_REASON: &str = "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE";

const MIB: i64 = 1 << 20;
/// A row's vCPU in thousandths, and its memory in MiB: first, last, step. "GB" is 1,024 MiB.
const ROWS: [(u32, u32, u32, u32); 7] = [
    (250, 512, 512, 512),
    (500, 1_024, 4_096, 1_024),
    (1_000, 2_048, 8_192, 1_024),
    (2_000, 4_096, 16_384, 1_024),
    (4_000, 8_192, 30_720, 1_024),
    (8_000, 16_384, 61_440, 4_096),
    (16_000, 32_768, 122_880, 8_192),
];
/// The first row has memory of its own that no step reaches: 0.5, 1 and 2 GB.
const FIRST_ROW_MORE_MIB: [u32; 2] = [1_024, 2_048];

/// The size of a micro-VM. Displays as the pod's annotation tells it: `0.5vCPU 1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// vCPU in thousandths.
    pub cpu_milli: u32,
    /// Memory.
    pub memory_mib: u32,
}

/// No VM is large enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Your pod's cpu/memory requirements exceed the max Fargate configuration")]
pub struct TooLarge;

/// Every size there is, the smallest vCPU first, in it the smallest memory.
pub fn table() -> impl Iterator<Item = Size> {
    ROWS.into_iter().flat_map(|(cpu_milli, first, last, step)| {
        let more: &[u32] = if cpu_milli == ROWS[0].0 { &FIRST_ROW_MORE_MIB } else { &[] };
        let memory = (first..=last).step_by(step as usize).chain(more.iter().copied());
        memory.map(move |memory_mib| Size { cpu_milli, memory_mib })
    })
}

/// The smallest size with so much cpu (thousandths) and memory (bytes, the VM's own not counted).
///
/// # Errors
/// If none is large enough.
pub fn smallest(cpu_milli: i64, memory_bytes: i64) -> Result<Size, TooLarge> {
    let memory_bytes = memory_bytes.saturating_add(OVERHEAD_MIB * MIB);
    table()
        .find(|size| {
            i64::from(size.cpu_milli) >= cpu_milli
                && i64::from(size.memory_mib) * MIB >= memory_bytes
        })
        .ok_or(TooLarge)
}

/// The size that a pod gets.
///
/// # Errors
/// If none is large enough.
pub fn of_pod(spec: &PodSpec) -> Result<Size, TooLarge> {
    let requests = pod_requests(spec);
    smallest(requests.get(CPU), requests.get(MEMORY))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = decimal(self.cpu_milli, 1_000);
        write!(f, "{cpu}vCPU {}GB", decimal(self.memory_mib, 1_024))
    }
}

/// The shortest decimal of a quotient that has at most three digits after the point.
fn decimal(numerator: u32, denominator: u32) -> String {
    let thousandths = u64::from(numerator) * 1_000 / u64::from(denominator);
    let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
    if rest == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
    }
}

/// The thousandths of a vCPU that a size's text begins with; 0 if it does not.
pub fn cpu_milli_of(text: &str) -> u64 {
    let vcpus = text.split_once("vCPU").and_then(|(vcpus, _)| vcpus.parse::<f64>().ok());
    vcpus.map_or(0, |vcpus| (vcpus * 1_000.0) as u64)
}

/// The text is not one of the sizes there are, `0.5vCPU 1GB`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size of Fargate; sizes read like 0.5vCPU 1GB")]
pub struct NoSize(String);

impl FromStr for Size {
    type Err = NoSize;
    fn from_str(text: &str) -> Result<Self, NoSize> {
        table().find(|size| size.to_string() == text).ok_or_else(|| NoSize(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use wharf_model::quantity::Quantity;

    use super::*;

    fn sized(containers: serde_json::Value, init: serde_json::Value) -> String {
        let spec = json!({"containers": containers, "initContainers": init});
        let spec: PodSpec = serde_json::from_value(spec).expect("a valid spec");
        of_pod(&spec).map_or_else(|error| error.to_string(), |size| size.to_string())
    }

    fn asking(cpu: &str, memory: &str) -> serde_json::Value {
        let mut requests = serde_json::Map::new();
        for (name, amount) in [("cpu", cpu), ("memory", memory)] {
            if !amount.is_empty() {
                requests.insert(name.to_owned(), json!(amount));
            }
        }
        json!({"name": "c", "resources": {"requests": requests, "limits": {"cpu": "16", "memory": "64Gi"}}})
    }

    #[test]
    fn there_are_74_pairs() {
        let count = |cpu| table().filter(|size| size.cpu_milli == cpu).count();
        let counts = ROWS.map(|(cpu, ..)| count(cpu));
        assert_eq!(counts, [3, 4, 7, 13, 23, 12, 12]);
        assert_eq!(table().count(), 74);
        let all: Vec<Size> = table().collect();
        assert!(all.is_sorted(), "the first that is large enough is the smallest");
        let texts: Vec<String> = all.iter().map(Size::to_string).collect();
        assert_eq!(texts[0], "0.25vCPU 0.5GB");
        assert_eq!(texts[73], "16vCPU 120GB");
        for (size, text) in all.iter().zip(&texts) {
            assert_eq!(text.parse::<Size>().as_ref(), Ok(size));
            assert_eq!(cpu_milli_of(text), u64::from(size.cpu_milli));
        }
        assert!("0.3vCPU 1GB".parse::<Size>().is_err());
    }

    #[test]
    fn observed_sizes() {
        for (cpu, memory, expected) in [
            ("", "", "0.25vCPU 0.5GB"),
            ("250m", "256M", "0.25vCPU 0.5GB"),
            ("250m", "256Mi", "0.25vCPU 0.5GB"),
            ("200m", "512Mi", "0.25vCPU 1GB"),
            ("250m", "1000Mi", "0.25vCPU 2GB"),
            ("255m", "1000Mi", "0.5vCPU 2GB"),
            ("500m", "500Mi", "0.5vCPU 1GB"),
            ("260m", "1750Mi", "0.5vCPU 2GB"),
            ("255m", "1800Mi", "0.5vCPU 3GB"),
            ("1", "8Gi", "2vCPU 9GB"),
            ("255m", "10Gi", "2vCPU 11GB"),
            ("", "1Gi", "0.25vCPU 2GB"),
            ("2", "", "2vCPU 4GB"),
            ("16", "119Gi", "16vCPU 120GB"),
            (
                "16001m",
                "",
                "Your pod's cpu/memory requirements exceed the max Fargate configuration",
            ),
            (
                "",
                "120Gi",
                "Your pod's cpu/memory requirements exceed the max Fargate configuration",
            ),
        ] {
            assert_eq!(sized(json!([asking(cpu, memory)]), json!([])), expected, "{cpu} {memory}");
        }
    }

    #[test]
    fn all_containers_count_and_the_largest_init_container() {
        let (small, large) = (asking("250m", "128Mi"), asking("2", "6Gi"));
        assert_eq!(sized(json!([small, small]), json!([])), "0.5vCPU 1GB");
        assert_eq!(sized(json!([small, small]), json!([large, small])), "2vCPU 7GB");
        assert_eq!(sized(json!([large]), json!([small])), "2vCPU 7GB");
        let mut sidecar = asking("1", "1Gi");
        sidecar["restartPolicy"] = json!("Always");
        assert_eq!(sized(json!([large]), json!([sidecar])), "4vCPU 8GB", "it stays");
    }

    /// At each pair: exactly as much as it holds gives it or a smaller row's, a little more does not.
    #[test]
    fn every_boundary_of_the_table() {
        let all: Vec<Size> = table().collect();
        for (index, size) in all.iter().enumerate() {
            let cpu = i64::from(size.cpu_milli);
            let memory = (i64::from(size.memory_mib) - OVERHEAD_MIB) * MIB;
            assert_eq!(smallest(cpu, memory), Ok(*size), "{size}");
            let next_in_row = all.get(index + 1).filter(|next| next.cpu_milli == size.cpu_milli);
            let more_memory = smallest(cpu, memory + 1);
            match next_in_row {
                Some(next) => assert_eq!(more_memory, Ok(*next), "{size} and a byte"),
                None => match more_memory {
                    Ok(larger) => assert!(larger.cpu_milli > size.cpu_milli, "{size} and a byte"),
                    Err(TooLarge) => assert_eq!(size.to_string(), "16vCPU 120GB"),
                },
            }
            match smallest(cpu + 1, memory) {
                Ok(larger) => assert!(larger.cpu_milli > size.cpu_milli, "{size} and 1m"),
                Err(TooLarge) => assert_eq!(size.cpu_milli, 16_000),
            }
        }
    }

    proptest! {
        #[test]
        fn never_smaller_than_asked_and_minimal(cpu in 0_i64..17_000, mib in 0_i64..130_000, odd in 0..MIB) {
            let bytes = mib * MIB + odd;
            let holds = |size: &Size| {
                i64::from(size.cpu_milli) >= cpu
                    && i64::from(size.memory_mib) * MIB >= bytes + OVERHEAD_MIB * MIB
            };
            match smallest(cpu, bytes) {
                Ok(size) => {
                    prop_assert!(holds(&size));
                    // Nothing with less vCPU holds it, and nothing with as much vCPU and less memory.
                    prop_assert!(table().filter(holds).all(|other| size <= other));
                }
                Err(TooLarge) => prop_assert!(!table().any(|size| holds(&size))),
            }
        }

        #[test]
        fn more_never_gets_less(cpu in 0_i64..16_000, mib in 0_i64..122_000, more in 0_i64..4_000) {
            let bytes = mib * MIB;
            if let (Ok(size), Ok(larger)) = (smallest(cpu, bytes), smallest(cpu + more, bytes)) {
                prop_assert!(larger.cpu_milli >= size.cpu_milli);
            }
            if let (Ok(size), Ok(larger)) = (smallest(cpu, bytes), smallest(cpu, bytes + more * MIB)) {
                prop_assert!(larger >= size);
            }
        }
    }

    #[test]
    fn amounts_as_the_api_writes_them_are_exact() {
        let quantity = Quantity::parse("256M").expect("a quantity");
        assert_eq!(smallest(250, quantity.value_ceil()).map(|size| size.memory_mib), Ok(512));
        assert_eq!(smallest(0, 256 * MIB + 1).map(|size| size.memory_mib), Ok(1_024));
    }
}

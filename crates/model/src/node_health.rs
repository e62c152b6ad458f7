//! What EKS' node monitoring agent says of a node, and how a node of a lab is made to fail.
//!
//! <https://docs.aws.amazon.com/eks/latest/userguide/node-health.html>

use std::collections::BTreeMap;

/// On a Node: what is broken about it, `KernelReady`, or `NetworkingReady=IPAMDNotReady`, several parted
/// by commas. `Ready` silences its kubelet.
pub const FAIL_ANNOTATION: &str = "sim.wharf.dev/fail";
/// What a silent kubelet breaks.
pub const READY: &str = "Ready";

/// A condition of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitored {
    /// Its type, `KernelReady`.
    pub condition: &'static str,
    /// Its reason while all is well.
    pub healthy: &'static str,
    /// What it is about, as its message has it.
    pub system: &'static str,
    /// A reason for which it is not, where nobody names another.
    pub unhealthy: &'static str,
    /// Whether only nodes with accelerators have it.
    pub is_for_accelerators: bool,
}

/// The conditions of the agent.
pub const MONITORED: [Monitored; 5] = [
    Monitored {
        condition: "KernelReady",
        healthy: "KernelIsReady",
        system: "Kernel",
        unhealthy: "ForkFailedOutOfPIDs",
        is_for_accelerators: false,
    },
    Monitored {
        condition: "NetworkingReady",
        healthy: "NetworkingIsReady",
        system: "Networking",
        unhealthy: "IPAMDNotReady",
        is_for_accelerators: false,
    },
    Monitored {
        condition: "StorageReady",
        healthy: "DiskIsReady",
        system: "Disk",
        unhealthy: "XFSSmallAverageClusterSize",
        is_for_accelerators: false,
    },
    Monitored {
        condition: "ContainerRuntimeReady",
        healthy: "ContainerRuntimeIsReady",
        system: "ContainerRuntime",
        unhealthy: "PodStuckTerminating",
        is_for_accelerators: false,
    },
    Monitored {
        condition: "AcceleratedHardwareReady",
        healthy: "NvidiaGPUIsReady",
        system: "Nvidia",
        unhealthy: "NvidiaDoubleBitError",
        is_for_accelerators: true,
    },
];

impl Monitored {
    /// The message while all is well.
    pub fn message(&self) -> String {
        format!("Monitoring for the {} system is active", self.system)
    }
}

/// What is broken about a node, by condition with the reason that is named, as its annotations say. What
/// is no condition is passed over.
pub fn faults(annotations: Option<&BTreeMap<String, String>>) -> BTreeMap<&str, &str> {
    let text = annotations.and_then(|all| all.get(FAIL_ANNOTATION)).map_or("", String::as_str);
    text.split(',')
        .filter_map(|part| {
            let (name, reason) = part.split_once('=').unwrap_or((part, ""));
            let (name, reason) = (name.trim(), reason.trim());
            if name == READY {
                return Some((name, reason));
            }
            let known = MONITORED.iter().find(|known| known.condition == name)?;
            Some((name, if reason.is_empty() { known.unhealthy } else { reason }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_annotation() {
        let read = |text: &str| {
            let annotations = BTreeMap::from([(FAIL_ANNOTATION.to_owned(), text.to_owned())]);
            let all = faults(Some(&annotations));
            all.iter()
                .map(|(condition, reason)| format!("{condition} {reason}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(read("KernelReady"), ["KernelReady ForkFailedOutOfPIDs"]);
        assert_eq!(
            read("NetworkingReady=InterfaceNotUp, Ready"),
            ["NetworkingReady InterfaceNotUp", "Ready "]
        );
        assert_eq!(read("nonsense,,="), [""; 0]);
        assert!(faults(None).is_empty());
    }
}

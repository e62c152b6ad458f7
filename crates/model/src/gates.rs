//! Upstream's feature gates that a cluster may turn on here, under upstream's names. All are alpha
//! and off unless somebody asks for them.

use std::str::FromStr;

use crate::vpa::validation::Gates;

/// Which features are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// `HPAScaleToZero`: a HorizontalPodAutoscaler may go down to no replica at all.
    pub hpa_scale_to_zero: bool,
    /// `NodeRepair`: Karpenter replaces nodes that are broken.
    pub node_repair: bool,
    /// The Vertical Pod Autoscaler's.
    pub vpa: Gates,
}

/// The names there are.
const NAMES: [&str; 4] = ["HPAScaleToZero", "InPlace", "NodeRepair", "PerVPAConfig"];

/// A list of gates that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatesError {
    /// No such gate.
    #[error("there is no feature gate {name:?}; there are {}", NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// Not `NAME=true` or `NAME=false`.
    #[error("{text:?} does not turn a feature gate on or off; write NAME=true or NAME=false")]
    Form {
        /// What was written.
        text: String,
    },
}

impl FromStr for FeatureGates {
    type Err = GatesError;

    /// `NAME=true,NAME=false`, as upstream's flag `--feature-gates`.
    fn from_str(text: &str) -> Result<Self, GatesError> {
        let mut gates = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let form = || GatesError::Form { text: pair.to_owned() };
            let (name, value) = pair.split_once('=').ok_or_else(form)?;
            let on = match value.trim() {
                "true" => true,
                "false" => false,
                _ => return Err(form()),
            };
            let gate = match name.trim() {
                "HPAScaleToZero" => &mut gates.hpa_scale_to_zero,
                "InPlace" => &mut gates.vpa.in_place,
                "NodeRepair" => &mut gates.node_repair,
                "PerVPAConfig" => &mut gates.vpa.per_vpa_config,
                name => return Err(GatesError::Unknown { name: name.to_owned() }),
            };
            *gate = on;
        }
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_turned_on_by_name() {
        let gates: FeatureGates =
            "HPAScaleToZero=true, InPlace=true,InPlace=false".parse().unwrap();
        assert!(gates.hpa_scale_to_zero && !gates.vpa.in_place);
        assert_eq!("".parse(), Ok(FeatureGates::default()));
        for (text, expected) in [
            (
                "HpaScaleToZero=true",
                "there is no feature gate \"HpaScaleToZero\"; there are HPAScaleToZero, InPlace, NodeRepair, PerVPAConfig",
            ),
            (
                "InPlace",
                "\"InPlace\" does not turn a feature gate on or off; write NAME=true or NAME=false",
            ),
            (
                "InPlace=yes",
                "\"InPlace=yes\" does not turn a feature gate on or off; write NAME=true or NAME=false",
            ),
        ] {
            let error = text.parse::<FeatureGates>().expect_err(text);
            assert_eq!(error.to_string(), expected);
        }
    }
}

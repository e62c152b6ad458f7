//! Custom resources: their schemas, defaults and rules are in the model, since upstream states them
//! in their definitions.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wharf_model::auto_mode::{AutoNodeClass, Cluster};
use wharf_model::balancing::{IngressClassParams, TargetGroupBinding};
use wharf_model::custom;
use wharf_model::fargate::FargateProfile;
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::Resource;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::subnet::{Cidr, Subnet};
use wharf_model::time::Time;
use wharf_model::vpa::{VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint};

use super::Rules;
use crate::field::{Errors, FieldError, Path};

macro_rules! custom_resource {
    ($($type:ty),*) => {
        $(impl Rules for $type {
            const GENERATION: bool = true;
            const UNCONDITIONAL_UPDATE: bool = false;

            fn set_defaults(&mut self) {
                default_by_schema(self);
            }

            fn prepare_create(&mut self, _now: Time) {
                self.status = Default::default();
            }

            fn starts_generation(&self, old: &Self) -> bool {
                self.spec != old.spec
            }

            fn take_status(&mut self, from: &Self) {
                self.status.clone_from(&from.status);
            }

            fn validate(&self, errors: &mut Errors) {
                validate_by_schema(self, None, errors);
            }

            fn validate_update(&self, old: &Self, errors: &mut Errors) {
                validate_by_schema(self, Some(old), errors);
            }
        })*
    };
}
custom_resource!(
    NodePool,
    NodeClaim,
    EC2NodeClass,
    VerticalPodAutoscaler,
    FargateProfile,
    AutoNodeClass,
    Cluster,
    Nodegroup
);
custom_resource!(TargetGroupBinding, IngressClassParams);

/// A subnet is what it was made as, and goes with the cluster.
impl Rules for Subnet {
    fn validate(&self, errors: &mut Errors) {
        validate_by_schema(self, None, errors);
        if let Err(error) = self.spec.cidr_block.parse::<Cidr>() {
            let path = Path::root("spec");
            errors.invalid(&path.child("cidrBlock"), &self.spec.cidr_block, error.to_string());
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&Path::root("spec"), &self.spec, &old.spec);
    }
}

/// Its definition has no status subresource: the status is written with the rest.
impl Rules for VerticalPodAutoscalerCheckpoint {
    const GENERATION: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    // Its schema says nothing but the types of fields, which decoding has seen to.
    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec || self.status != old.status
    }
}

fn default_by_schema<T: Resource + Serialize + DeserializeOwned>(object: &mut T) {
    let mut value = value_of(object);
    custom::apply_defaults(T::kind().kind, &mut value);
    // Defaults are of the types the schema gives, so the result always decodes; if a value that
    // was wrong before does not, validation names it.
    if let Ok(defaulted) = serde_json::from_value(value) {
        *object = defaulted;
    }
}

fn validate_by_schema<T: Resource + Serialize>(object: &T, old: Option<&T>, errors: &mut Errors) {
    let old = old.map(value_of);
    for error in custom::validate(T::kind().kind, &value_of(object), old.as_ref()) {
        let body = error.body();
        errors.push(FieldError { reason: error.kind.reason(), field: error.field, body });
    }
}

fn value_of<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

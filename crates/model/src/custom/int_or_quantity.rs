//! An amount in a custom resource: an integer or a quantity.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quantity::{Quantity, QuantityError};

/// An amount in the form in which it was written.
///
/// The API server stores a custom resource as it came (`x-kubernetes-int-or-string`): `cpu: 1000`
/// stays a number. Were it given back as a text, applying the same manifest again would be a
/// change. Equality is therefore that of the form; amounts are compared as [`Quantity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrQuantity {
    /// A JSON number.
    Int(i64),
    /// A JSON text, not necessarily canonical.
    Text(String),
}

impl TryFrom<&IntOrQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(amount: &IntOrQuantity) -> Result<Quantity, QuantityError> {
        match amount {
            IntOrQuantity::Int(number) => {
                Ok(Quantity::from_units(*number, crate::quantity::Format::DecimalSi))
            }
            // Upstream trims what comes out of JSON.
            IntOrQuantity::Text(text) => Quantity::parse(text.trim()),
        }
    }
}

impl From<ApiQuantity> for IntOrQuantity {
    fn from(quantity: ApiQuantity) -> Self {
        Self::Text(quantity.0)
    }
}

impl fmt::Display for IntOrQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Serialize for IntOrQuantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

struct AnyForm;

impl Visitor<'_> for AnyForm {
    type Value = IntOrQuantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a quantity")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrQuantity, E> {
        Ok(IntOrQuantity::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrQuantity, E> {
        let number = i64::try_from(number)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
        Ok(IntOrQuantity::Int(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrQuantity, E> {
        Ok(IntOrQuantity::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_form_stays_and_the_amount_is_a_quantity() {
        for (written, amount) in [
            (json!(1000), Some("1k")),
            (json!("1000"), Some("1k")),
            (json!(" 1000m"), Some("1")),
            (json!(-3), Some("-3")),
            (json!("1000Gi"), Some("1000Gi")),
            (json!("many"), None),
        ] {
            let read: IntOrQuantity = serde_json::from_value(written.clone()).unwrap();
            let back: Value = serde_json::to_value(&read).unwrap();
            assert_eq!(back, written);
            let quantity = Quantity::try_from(&read).ok().map(|quantity| quantity.to_string());
            assert_eq!(quantity.as_deref(), amount, "{written}");
        }
        for refused in [json!(0.5), json!(true), json!(null), json!(u64::MAX)] {
            assert!(serde_json::from_value::<IntOrQuantity>(refused.clone()).is_err(), "{refused}");
        }
    }
}

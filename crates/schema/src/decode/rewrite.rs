//! Rewriting a value into the plain form that typed decoding reads: no nulls, quantities as
//! canonical texts, base64 in one line.

use serde_json::{Value, json};
use wharf_model::quantity::Quantity;

use crate::tree::{Shape, Tree};

/// Rewrites in place. What does not fit its shape is left as it is, to be refused by the decoder.
pub(super) fn rewrite(tree: &Tree, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Object(id), Value::Object(map)) => {
            let definition = tree.definition(*id);
            // A null is the same as an absent field.
            map.retain(|_, value| !value.is_null());
            for (name, value) in map.iter_mut() {
                if let Some(field) = definition.field(name) {
                    rewrite(tree, &field.shape, value);
                }
            }
        }
        (Shape::Map(inner), Value::Object(map)) => {
            for value in map.values_mut() {
                rewrite_item(tree, inner, value);
            }
        }
        (Shape::List(inner), Value::Array(list)) => {
            for value in list {
                rewrite_item(tree, inner, value);
            }
        }
        (Shape::Quantity, value) => {
            if let Some(quantity) = quantity_of(value) {
                *value = Value::String(quantity.to_api().0);
            }
        }
        (Shape::Bytes, Value::String(text)) => text.retain(|c| c != '\n' && c != '\r'),
        _ => {}
    }
}

/// Items are never absent: a null becomes what Go calls the zero value.
fn rewrite_item(tree: &Tree, shape: &Shape, value: &mut Value) {
    if value.is_null() {
        *value = match shape {
            Shape::String | Shape::Bytes => json!(""),
            Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => json!(0),
            Shape::Quantity | Shape::LooseQuantity => json!("0"),
            Shape::Boolean => json!(false),
            Shape::List(_) => json!([]),
            Shape::Map(_) | Shape::Object(_) => json!({}),
            Shape::Any | Shape::Time | Shape::MicroTime => return,
        };
    }
    rewrite(tree, shape, value);
}

/// The quantity that a text or number is.
fn quantity_of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

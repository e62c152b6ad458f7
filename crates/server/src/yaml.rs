//! YAML bodies, read as Kubernetes reads them: as JSON in another spelling.

use bytes::Bytes;
use serde_json::Value;
use wharf_ports::error::ApiError;
use wharf_schema::decode::yaml_to_json;

use crate::status::bad_request;

/// Reads one YAML document as JSON bytes.
///
/// # Errors
/// 400 with the place of the mistake.
pub(crate) fn to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    Ok(Bytes::from(read(body)?.to_string()))
}

fn read(body: &[u8]) -> Result<Value, ApiError> {
    let refuse = |why: &str| bad_request(format!("error converting YAML to JSON: yaml: {why}"));
    let text =
        std::str::from_utf8(body).map_err(|_| refuse("control characters are not allowed"))?;
    yaml_to_json(text).map_err(|why| refuse(&why))
}

/// Writes a value as YAML.
///
/// # Errors
/// The writer's text.
pub(crate) fn write(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_means_what_manifests_mean() {
        let value = read(b"kind: ConfigMap\ndata:\n  a: \"1\"\nmode: 0644\nlist: [1, x, true]\n");
        let expected = serde_json::json!({
            "kind": "ConfigMap", "data": {"a": "1"}, "mode": 420, "list": [1, "x", true]
        });
        assert_eq!(value.expect("valid"), expected);
        assert_eq!(read(write(&expected).expect("written").as_bytes()).expect("valid"), expected);
        assert!(read(b"a: [").expect_err("broken").message.starts_with("error converting YAML"));
    }
}

//! YAML bodies, read as Kubernetes reads them: as JSON in another spelling.

use bytes::Bytes;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use wharf_ports::error::ApiError;

use crate::status::bad_request;

/// Reads one YAML document as JSON bytes.
///
/// # Errors
/// 400 with the place of the mistake.
pub(crate) fn to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    let value = read(body)?;
    Ok(Bytes::from(value.to_string()))
}

/// Reads one YAML document.
///
/// # Errors
/// 400 with the place of the mistake.
pub(crate) fn read(body: &[u8]) -> Result<Value, ApiError> {
    let options = serde_saphyr::options! {
        // `mode: 0644` means 420 in manifests.
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
    };
    serde_saphyr::from_slice_with_options(body, options)
        .map_err(|error| bad_request(format!("error converting YAML to JSON: yaml: {error}")))
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

//! The OpenAPI documents: v3 by group-version with an index, and v2 as a whole, as JSON and as the
//! protobuf that older clients ask for.
//!
//! kubectl reads them to explain fields, to learn whether the server validates fields, and to make
//! strategic merge patches. All are made once, on first request, and kept.
//!
//! Public contract: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition>.

mod definitions;
mod gnostic;
mod paths;
mod served;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use definitions::Definitions;
use served::Served;

/// `/openapi/v3`: where the document of each group-version is. The addresses hold a hash of the
/// content, so that clients may keep them for ever.
pub fn v3_index() -> &'static [u8] {
    static INDEX: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let paths: Map<String, Value> = documents()
            .iter()
            .map(|(path, document)| {
                let address = format!("/openapi/v3/{path}?hash={}", hash(document));
                (path.clone(), json!({"serverRelativeURL": address}))
            })
            .collect();
        encode(&json!({"paths": paths}))
    });
    &INDEX
}

/// The v3 document of a group-version, named as in its path: `api/v1`, `apis/apps/v1`.
pub fn v3_group_version(path: &str) -> Option<&'static [u8]> {
    documents().get(path).map(Vec::as_slice)
}

/// `/openapi/v2` as JSON.
pub fn v2_json() -> &'static [u8] {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| encode(&v2()));
    &DOCUMENT
}

/// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf() -> &'static [u8] {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| gnostic::document(&v2()));
    &DOCUMENT
}

/// A document's entity tag, without quotes: its hash in capital hexadecimal digits.
pub fn hash(document: &[u8]) -> String {
    // FNV-1a in 128 bits: the tag only has to change with the content.
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let digest = document
        .iter()
        .fold(OFFSET, |digest, byte| (digest ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{digest:032X}")
}

/// The two forms of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// Where references to definitions point to.
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The v3 documents by path.
fn documents() -> &'static BTreeMap<String, Vec<u8>> {
    static DOCUMENTS: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
        let definitions = Definitions::new(Dialect::V3);
        let mut by_path: BTreeMap<String, Vec<&Served>> = BTreeMap::new();
        for served in definitions.served() {
            by_path.entry(served.group_version_path()).or_default().push(served);
        }
        by_path
            .into_iter()
            .map(|(path, served)| {
                let document = json!({
                    "openapi": "3.0.0",
                    "info": info(),
                    "paths": paths::of(&served, Dialect::V3),
                    "components": {"schemas": definitions.reachable_from(&served)},
                });
                (path, encode(&document))
            })
            .collect()
    });
    &DOCUMENTS
}

fn v2() -> Value {
    let definitions = Definitions::new(Dialect::V2);
    let served: Vec<&Served> = definitions.served().iter().collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::of(&served, Dialect::V2),
        "definitions": definitions.reachable_from(&served),
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

fn encode(document: &Value) -> Vec<u8> {
    // Values with text keys always encode.
    serde_json::to_vec(document).expect("a JSON value always encodes")
}

#[cfg(test)]
mod tests;

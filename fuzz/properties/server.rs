//! What must hold of any input to the parsers of `wharf-server`.

/// What clients of `exec`, `attach` and `port-forward` send, in each form: nothing panics.
pub(crate) fn streams(data: &[u8]) {
    wharf_server::fuzz_streams(data);
}

//! Tables as eksctl prints them: columns padded and parted by tabs.

use std::collections::BTreeMap;

/// The rows as a table, the header among them.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("\t").trim_end());
        text.push('\n');
    }
    text
}

/// Pairs as `key=value`, joined by commas.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(pairs.join(","))
}

/// The text, or what eksctl prints for none.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

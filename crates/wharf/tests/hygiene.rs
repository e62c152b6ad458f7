//! Rules for the repository itself, as tests: the size of files, the direction of dependencies,
//! words that must not be committed, links that lead nowhere.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use harness::repository;

/// Longer files hold more than one idea.
const LINES_MAX: usize = 800;

/// What each crate may use of the others. The arrows point one way: from the shell to the cores
/// to the vocabulary.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("ports", &["model"]),
    ("cel", &["model"]),
    ("scheduler", &["model", "cel"]),
    ("autoscale", &["model"]),
    ("provision", &["model"]),
    ("fargate", &["model"]),
    ("store", &["model", "ports"]),
    ("cloud", &["model", "ports", "fargate"]),
    ("load", &["model"]),
    ("node", &["model", "ports", "load", "autoscale", "fargate"]),
    ("schema", &["model", "ports"]),
    ("remote", &["model", "ports"]),
    ("registry", &["model", "ports", "store", "autoscale", "fargate"]),
    ("controllers", &["model", "ports", "scheduler", "autoscale", "provision", "fargate", "cloud"]),
    ("server", &["model", "ports", "store", "registry", "schema"]),
    (
        "sim",
        &[
            "model",
            "ports",
            "scheduler",
            "store",
            "registry",
            "schema",
            "controllers",
            "cloud",
            "fargate",
            "node",
        ],
    ),
    (
        "wharf",
        &[
            "model",
            "ports",
            "scheduler",
            "autoscale",
            "provision",
            "fargate",
            "store",
            "cloud",
            "node",
            "schema",
            "registry",
            "controllers",
            "remote",
            "server",
            "sim",
        ],
    ),
];

#[test]
fn files_stay_short() {
    let long: Vec<String> = sources()
        .filter_map(|path| {
            let lines = read(&path).lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split what is longer than {LINES_MAX} lines: {long:#?}");
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let folders: BTreeSet<String> = std::fs::read_dir(repository().join("crates"))
        .expect("there are crates")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let named: BTreeSet<String> = allowed.keys().map(|&name| name.to_owned()).collect();
    assert_eq!(folders, named, "a new crate gets its row in MAY_USE and in ARCHITECTURE.md");
    for (name, allowed) in allowed {
        let manifest = read(&repository().join("crates").join(name).join("Cargo.toml"));
        // Tests may use what they like.
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines().filter_map(|line| line.strip_prefix("wharf-")) {
            let used: String = line.chars().take_while(char::is_ascii_lowercase).collect();
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
}

#[test]
fn cores_do_no_io() {
    for name in ["model", "ports", "scheduler", "provision", "autoscale", "load", "fargate"] {
        for path in sources_of(&repository().join("crates").join(name).join("src")) {
            let text = read(&path);
            for word in ["std::fs", "std::net", "std::process", "std::thread", "tokio::"] {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn nothing_unfinished_is_committed() {
    // Put together here, so that this file does not hold them.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let notes = ["TO", "FIX", "X"].map(|start| match start {
        "TO" => "TODO".to_owned(),
        "FIX" => format!("{start}ME"),
        _ => "XXX".to_owned(),
    });
    for path in sources().filter(|path| !path.ends_with("tests/hygiene.rs")) {
        let text = read(&path);
        for word in words.iter().chain(&notes) {
            assert!(!text.contains(word.as_str()), "{} holds {word}", path.display());
        }
    }
}

#[test]
fn nothing_speaks_of_one_machine() {
    // Put together here, so that this file does not hold them.
    let folders = ["work", "root", "home"].map(|name| format!("/{name}/"));
    for path in sources().chain(documents()) {
        let text = read(&path);
        for folder in &folders {
            assert!(!text.contains(folder.as_str()), "{} names {folder}", path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .filter(|path| !path.ends_with("tests.rs"))
        .filter(|path| {
            let text = read(path);
            let first = text.lines().find(|line| !line.trim().is_empty());
            !first.is_some_and(|line| line.starts_with("//!"))
        })
        .map(|path| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "these begin without a module head: {silent:#?}");
}

#[test]
fn links_in_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        let folder = document.parent().expect("a file lies in a folder");
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { document.clone() } else { folder.join(path) };
            assert!(file.exists(), "{}: {target} leads nowhere", document.display());
            if !anchor.is_empty() {
                let anchors: Vec<String> = headings(&read(&file));
                let there = anchors.iter().any(|heading| heading == anchor);
                assert!(there, "{}: {target} leads to no heading", document.display());
            }
        }
    }
}

#[test]
fn every_crate_is_in_the_architecture() {
    let text = read(&repository().join("ARCHITECTURE.md"));
    for (name, _) in MAY_USE {
        assert!(text.contains(&format!("crates/{name}")), "ARCHITECTURE.md is silent on {name}");
    }
}

fn sources() -> impl Iterator<Item = PathBuf> {
    sources_of(&repository().join("crates")).into_iter()
}

/// The Rust files of a folder, in order.
fn sources_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(folder, &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files
}

fn documents() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["docs", "labs"] {
        walk(&repository().join(folder), &mut files);
    }
    for entry in std::fs::read_dir(repository()).expect("the repository is there").flatten() {
        files.push(entry.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            targets.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    targets
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

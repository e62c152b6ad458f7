//! The console blocks of the documents do what they say.
//!
//! A block after `<!-- runnable -->` is executed, with the root of the repository as the working
//! folder; one after `<!-- runnable: cluster -->` with a lab behind kubectl, the same one for all
//! such blocks of a document. Output is compared line by line: numbers, ages, generated names and
//! spaces may differ, `...` stands for any lines. What only shows the state of the cluster is asked
//! again until it shows what the document says.

#![allow(clippy::disallowed_methods, reason = "tests drive real processes, on real time")]

mod harness;

use std::path::Path;
use std::process::Command;

use harness::{Finished, PATIENCE, Wharf, newest_kubectl, repository, run, wharf_binary};
use tempfile::TempDir;

#[test]
fn readme() {
    follow("README.md");
}

#[test]
fn inflate_lab() {
    follow("labs/inflate/README.md");
}

#[test]
fn cpa_lab() {
    follow("labs/cpa/README.md");
}

#[test]
fn over_provisioning_lab() {
    follow("labs/over-provisioning/README.md");
}

#[test]
fn documents() {
    for entry in std::fs::read_dir(repository().join("docs")).expect("there are documents") {
        let name = entry.expect("it can be read").file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            follow(&format!("docs/{name}"));
        }
    }
}

#[test]
fn outputs_are_compared_by_their_shape() {
    for (expected, actual) in [
        ("default-8f5vd   c5a.2xlarge  79s", "default-x7ntc c6a.4xlarge 2m3s"),
        ("pod/inflate-b6b45f8d4-8xzbm", "pod/inflate-7bd64d9b8f-2c4dx"),
        ("us-east-1c ip-192-168-88-171.ec2.internal", "us-east-1a ip-192-168-1-7.ec2.internal"),
        ("deleted", "deleted from default namespace"),
    ] {
        assert!(matches(&[expected], &[actual]), "{} / {}", shape(expected), shape(actual));
    }
    for (expected, actual) in [
        ("deployment.apps/inflate scaled", "deployment.apps/inflate created"),
        ("True", "False"),
        ("c5a.2xlarge", "m5a.2xlarge"),
    ] {
        assert!(!matches(&[expected], &[actual]), "{expected} / {actual}");
    }
    assert!(matches(&["a", "...", "d"], &["a", "b", "c", "d"]));
    assert!(matches(&["a", "..."], &["a"]));
    assert!(!matches(&["a", "...", "d"], &["a", "b"]));
    assert!(!matches(&["a"], &["a", "b"]));
}

/// A command of a document and the lines it says it prints.
#[derive(Debug)]
struct Example {
    line: usize,
    cluster: bool,
    command: String,
    output: Vec<String>,
}

fn follow(document: &str) {
    let text = std::fs::read_to_string(repository().join(document)).expect("the document is there");
    let examples = examples(&text);
    let home = TempDir::new().expect("a temporary folder");
    let tools = tools(home.path());
    let lab = examples.iter().any(|example| example.cluster).then(Wharf::ephemeral);
    for example in &examples {
        let place = format!("{document}:{}", example.line);
        let kubeconfig = lab.as_ref().filter(|_| example.cluster).map(|lab| &*lab.kubeconfig);
        // A document may speak of a command that only looks before what it looks for is there.
        let looks = ["kubectl get ", "kubectl logs ", "kubectl describe ", "kubectl events "];
        let again = looks.iter().any(|look| example.command.starts_with(look));
        let give_up = std::time::Instant::now() + PATIENCE;
        loop {
            let finished = shell(&example.command, &tools, home.path(), kubeconfig);
            let actual: Vec<&str> = finished.stdout.lines().collect();
            let expected: Vec<&str> = example.output.iter().map(String::as_str).collect();
            if finished.code == Some(0) && matches(&expected, &actual) {
                break;
            }
            assert!(
                again && std::time::Instant::now() < give_up,
                "{place}: {finished}\nthe document says:\n{}",
                expected.join("\n")
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    // A document with no example at all is fine; one whose marks are misspelt is not.
    assert_eq!(
        text.matches("<!-- runnable").count(),
        blocks(&text),
        "{document}: a mark without a block"
    );
}

/// A folder with `wharf` and `kubectl`, to go before the PATH.
fn tools(home: &Path) -> std::path::PathBuf {
    let folder = home.join("bin");
    std::fs::create_dir(&folder).expect("a temporary folder can be written");
    for (name, target) in [("wharf", wharf_binary()), ("kubectl", &newest_kubectl())] {
        std::os::unix::fs::symlink(target, folder.join(name)).expect("a link can be made");
    }
    folder
}

fn shell(line: &str, tools: &Path, home: &Path, kubeconfig: Option<&Path>) -> Finished {
    // The build of the tests stands for the release build.
    let line = line.replace("cargo run --release -- ", "wharf ");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.args(["-e", "-o", "pipefail", "-c", &line]).current_dir(repository());
    command.env("PATH", format!("{}:{path}", tools.display())).env("HOME", home);
    match kubeconfig {
        Some(file) => command.env("KUBECONFIG", file),
        None => command.env_remove("KUBECONFIG"),
    };
    run(command)
}

fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut mark = None;
    let mut block = None;
    for (index, line) in text.lines().enumerate() {
        match (block, line) {
            (None, "<!-- runnable -->") => mark = Some(false),
            (None, "<!-- runnable: cluster -->") => mark = Some(true),
            (None, "```console") => block = Some(mark.take()),
            (None, _) => {}
            (Some(_), "```") => block = None,
            (Some(None), _) => {}
            (Some(Some(cluster)), _) => match line.strip_prefix("$ ") {
                Some(command) => examples.push(Example {
                    line: index + 1,
                    cluster,
                    command: command.to_owned(),
                    output: Vec::new(),
                }),
                None => {
                    let example = examples.last_mut().expect("a block begins with a command");
                    example.output.push(line.to_owned());
                }
            },
        }
    }
    examples
}

/// How many runnable blocks there are.
fn blocks(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("<!-- runnable") && pair[1] == "```console")
        .count()
}

/// Whether lines have the shapes of the expected ones; `...` alone on a line stands for any lines.
fn matches(expected: &[&str], actual: &[&str]) -> bool {
    match (expected, actual) {
        ([], rest) => rest.is_empty(),
        (["...", after @ ..], _) => {
            (0..=actual.len()).any(|skipped| matches(after, &actual[skipped..]))
        }
        ([_, ..], []) => false,
        ([first, expected @ ..], [line, actual @ ..]) => {
            let (wanted, got) = (shape(first), shape(line));
            // Newer kubectls name the namespace of what they delete.
            let longer = format!("{wanted} from default namespace");
            (wanted == got || longer == got) && matches(expected, actual)
        }
    }
}

/// A line without what differs from run to run.
fn shape(line: &str) -> String {
    line.split_whitespace().map(word_shape).collect::<Vec<_>>().join(" ")
}

fn word_shape(word: &str) -> String {
    // An age or a span: 79s, 2m3s, 1h.
    let is_age = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || "dhms.".contains(c))
    };
    if is_age(word) {
        return "0".to_owned();
    }
    if let Some(zone) = word.strip_prefix("us-east-1").filter(|rest| rest.len() == 1) {
        return format!("us-east-{}", if zone.is_empty() { "" } else { "?" });
    }
    let parts: Vec<String> =
        word.split('-').enumerate().map(|(at, part)| part_shape(at, part)).collect();
    parts.join("-")
}

/// A part of a name: a generated suffix becomes `*`, digits become `0`.
fn part_shape(at: usize, part: &str) -> String {
    const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";
    let length = part.len();
    let generated = at > 0
        && (length == 5 || (8..=10).contains(&length))
        && part.chars().all(|c| GENERATED.contains(c));
    if generated {
        return "*".to_owned();
    }
    let mut shape = String::new();
    for c in part.chars() {
        match c {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            _ => shape.push(c),
        }
    }
    shape
}

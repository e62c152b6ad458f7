//! Bad input: one clear line that says what to do, exit code 2, and nothing half-written.

mod harness;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Finished, Options, Wharf, run, wharf_binary};
use tempfile::TempDir;

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let folder = TempDir::new().expect("a temporary folder");
    let (error, kubeconfig) = refused(folder.path(), &["up", "--ephemeral", "--listen", &address]);
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
    assert!(!kubeconfig.exists(), "a kubeconfig for a server that never was");
    // Nor is a data directory begun.
    let data = folder.path().join("data").display().to_string();
    refused(folder.path(), &["up", "--data", &data, "--listen", &address]);
}

#[test]
fn an_address_that_is_none() {
    let folder = TempDir::new().expect("a temporary folder");
    for address in ["localhost", "127.0.0.1:port", "127.0.0.1:99999"] {
        let arguments = ["up", "--ephemeral", "--listen", address];
        let error = wharf(folder.path(), &arguments).fails_with(2);
        assert!(error.contains(address) && error.contains("127.0.0.1:6443"), "{error}");
    }
}

#[test]
fn a_data_directory_that_another_holds() {
    let data = TempDir::new().expect("a temporary folder");
    let path = data.path().display().to_string();
    let wharf = Wharf::start(&Options { data: Some(data.path().to_owned()), ..Options::default() });
    let folder = TempDir::new().expect("a temporary folder");
    let (error, kubeconfig) =
        refused(folder.path(), &["up", "--data", &path, "--listen", "127.0.0.1:0"]);
    assert!(error.contains(&path), "{error}");
    assert!(
        error.contains("another") || error.contains("lock") || error.contains("in use"),
        "{error}"
    );
    assert!(!kubeconfig.exists());
    // The one that holds it has not noticed.
    assert_eq!(wharf.kubectl().ok("get ns default -o name"), "namespace/default\n");
}

#[test]
fn a_data_directory_that_cannot_be_written() {
    let folder = TempDir::new().expect("a temporary folder");
    // Below a file nobody can make a folder, whoever runs the test.
    let file = folder.path().join("file");
    std::fs::write(&file, "text").expect("a file");
    for data in [file.clone(), file.join("data")] {
        let path = data.display().to_string();
        let (error, kubeconfig) =
            refused(folder.path(), &["up", "--data", &path, "--listen", "127.0.0.1:0"]);
        assert!(error.contains(&path), "{error}");
        assert!(!kubeconfig.exists());
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "text");
    }
}

#[test]
fn a_data_file_that_is_damaged() {
    let data = TempDir::new().expect("a temporary folder");
    let path = data.path().display().to_string();
    let wharf = Wharf::start(&Options { data: Some(data.path().to_owned()), ..Options::default() });
    wharf.kubectl().ok("create configmap kept --from-literal=a=b");
    assert!(wharf.stop("TERM").success());

    let whole = contents(data.path());
    let largest = whole.iter().max_by_key(|(_, bytes)| bytes.len()).expect("there is a data file");
    let largest = largest.0.clone();
    for damage in
        [b"this is no data file".to_vec(), whole[&largest].iter().map(|byte| byte ^ 0x5a).collect()]
    {
        std::fs::write(&largest, &damage).expect("the file can be written");
        let before = contents(data.path());
        let folder = TempDir::new().expect("a temporary folder");
        let (error, kubeconfig) =
            refused(folder.path(), &["up", "--data", &path, "--listen", "127.0.0.1:0"]);
        assert!(error.contains(&path), "{error}");
        assert!(!kubeconfig.exists());
        assert_eq!(contents(data.path()), before, "a damaged file is left for rescue");
    }

    std::fs::write(&largest, &whole[&largest]).expect("the file can be written");
    let wharf = Wharf::start(&Options { data: Some(data.path().to_owned()), ..Options::default() });
    assert_eq!(wharf.kubectl().ok("get configmap kept -o jsonpath={.data.a}"), "b");
}

#[test]
fn a_region_that_is_unknown() {
    let folder = TempDir::new().expect("a temporary folder");
    for arguments in [
        &["up", "--ephemeral", "--listen", "127.0.0.1:0", "--region", "eu-nowhere-9"][..],
        &["catalog", "--region", "eu-nowhere-9"],
    ] {
        let (error, kubeconfig) = refused(folder.path(), arguments);
        assert!(error.contains("eu-nowhere-9"), "{error}");
        assert!(error.contains("us-east-1"), "known regions help: {error}");
        assert!(!kubeconfig.exists());
    }
}

#[test]
fn a_scenario_with_a_mistake() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("scenario.yaml");
    let path = file.display().to_string();
    for (step, says) in [
        ("{at: 10s, restart: deployment/inflate}", "restart"),
        ("{at: ten minutes, delete: deployment/inflate}", "ten minutes"),
        ("{at: 10s, scale: deployment/inflate}", "replicas"),
        ("{at: 10s, delete: rocket/inflate}", "rocket"),
        ("{at: 10s, apply: [{file: not-there.yaml}]}", "not-there.yaml"),
    ] {
        let text = format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: bad}}\nspec:\n  until: 10m\n  steps:\n    - {step}\n"
        );
        std::fs::write(&file, text).expect("a file");
        let (error, _) = refused(folder.path(), &["simulate", &path]);
        assert!(error.contains(says), "{step}: {error}");
        assert!(error.contains("scenario.yaml") || error.contains("not-there.yaml"), "{error}");
    }
    let (error, _) = refused(folder.path(), &["simulate", "no-such-file.yaml"]);
    assert!(error.contains("no-such-file.yaml"), "{error}");
}

#[test]
fn a_scenario_whose_manifest_is_invalid() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("scenario.yaml");
    let path = file.display().to_string();
    for (manifest, says) in [
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: Bad_Name}}", "metadata.name"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
            "spec.containers",
        ),
        ("{apiVersion: v1, kind: Rocket, metadata: {name: p}}", "Rocket"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {contaners: []}}", "contaners"),
    ] {
        let text = format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: bad}}\nspec:\n  until: 10m\n  manifests:\n    - inline: {manifest}\n"
        );
        std::fs::write(&file, text).expect("a file");
        let (error, _) = refused(folder.path(), &["simulate", &path]);
        assert!(error.contains(says), "{manifest}: {error}");
    }
}

#[test]
fn durations_speeds_and_seeds_that_are_none() {
    let folder = TempDir::new().expect("a temporary folder");
    let scenario = harness::lab_file("scenario.yaml");
    for (arguments, says) in [
        (&["simulate", &scenario, "--until", "5 parsecs"][..], "5 parsecs"),
        (&["simulate", &scenario, "--until", "-5m"], "-5m"),
        (&["simulate", &scenario, "--seed", "many"], "many"),
        (&["simulate", &scenario, "-o", "xml"], "xml"),
        (&["up", "--ephemeral", "--speed", "0"], "0"),
        (&["up", "--ephemeral", "--speed", "fast"], "fast"),
        (&["up", "--ephemeral", "--seed", "-1"], "-1"),
    ] {
        let finished = wharf(folder.path(), arguments);
        let error = finished.fails_with(2);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[test]
fn flags_and_commands_that_are_unknown() {
    let folder = TempDir::new().expect("a temporary folder");
    for (arguments, says) in [
        (&["up", "--sped", "60"][..], "--sped"),
        (&["upp"], "upp"),
        (&["up", "--ephemeral", "--data", "somewhere"], "--data"),
        (&["simulate"], "FILE"),
        (&["catalog", "--region"], "--region"),
    ] {
        let finished = wharf(folder.path(), arguments);
        assert_eq!(finished.stdout, "", "{finished}");
        let error = finished.fails_with(2);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[test]
fn no_lab_to_talk_to() {
    let folder = TempDir::new().expect("a temporary folder");
    for arguments in [&["clock"][..], &["why", "pod/inflate"], &["token"]] {
        let (error, kubeconfig) = refused(folder.path(), arguments);
        assert!(error.contains("wharf up"), "it says what to do: {error}");
        assert!(!kubeconfig.exists());
    }
}

/// Runs `wharf`, which must refuse with exit code 2 and one line; returns the line and the place
/// where a kubeconfig would have been written.
#[track_caller]
fn refused(home: &Path, arguments: &[&str]) -> (String, PathBuf) {
    let finished = wharf(home, arguments);
    assert_eq!(finished.stdout, "", "{finished}");
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "one line says it all: {finished}");
    let line = lines[0].to_owned();
    assert!(line.starts_with("error: ") || line.starts_with("wharf: "), "{line}");
    finished.fails_with(2);
    (line, home.join(".kube/config"))
}

fn wharf(home: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(wharf_binary());
    command.args(arguments).env("HOME", home).env_remove("KUBECONFIG").current_dir(home);
    run(command)
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.clone(), std::fs::read(&path).expect("the file can be read"));
            }
        }
    }
    files
}

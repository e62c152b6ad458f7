//! What `wharf up` does to kubeconfig files: adds its context, loses nothing.

mod harness;

use std::path::Path;
use std::process::Command;

use harness::{Kubectl, Wharf, newest_kubectl, run, wharf_binary};
use tempfile::TempDir;

const OTHERS: &str = "\
apiVersion: v1
kind: Config
clusters:
- name: production
  cluster:
    server: https://production.example.com:6443
    certificate-authority-data: Q0E=
contexts:
- name: production
  context:
    cluster: production
    user: somebody
    namespace: shop
users:
- name: somebody
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: aws
      args: [eks, get-token, --cluster-name, production]
current-context: production
preferences:
  colors: true
extensions:
- name: example.com/kept
  extension:
    anything: [1, 2]
";

#[test]
fn the_users_own_file_gains_a_context_and_loses_nothing() {
    let home = TempDir::new().expect("a temporary folder");
    let file = home.path().join(".kube/config");
    std::fs::create_dir(home.path().join(".kube")).expect("a folder");
    std::fs::write(&file, OTHERS).expect("a file");

    let wharf = up(home, &file, &[]);
    let kubectl = wharf.kubectl();
    assert_eq!(kubectl.ok("config current-context"), "wharf\n");
    let mut contexts: Vec<String> =
        kubectl.ok("config get-contexts -o name").lines().map(str::to_owned).collect();
    contexts.sort();
    assert_eq!(contexts, ["production", "wharf"]);
    assert_eq!(kubectl.ok("get namespace default -o name"), "namespace/default\n");

    let text = std::fs::read_to_string(&file).expect("it is there");
    for kept in [
        "https://production.example.com:6443",
        "Q0E=",
        "get-token",
        "client.authentication.k8s.io/v1beta1",
        "namespace: shop",
        "colors: true",
        "example.com/kept",
        "anything",
    ] {
        assert!(text.contains(kept), "{kept:?} was lost:\n{text}");
    }
    assert_eq!(mode(&file), 0o600, "it holds a private key");
}

#[test]
fn without_a_file_one_is_made() {
    let home = TempDir::new().expect("a temporary folder");
    let file = home.path().join(".kube/config");
    let wharf = up(home, &file, &[]);
    assert_eq!(wharf.kubectl().ok("config current-context"), "wharf\n");
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_second_start_replaces_its_own_context_only() {
    let data = TempDir::new().expect("a temporary folder");
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("config");
    std::fs::write(&file, OTHERS).expect("a file");
    for _ in 0..2 {
        let home = TempDir::new().expect("a temporary folder");
        let data = data.path().display().to_string();
        let wharf = up_with(home, &file, &["--data", &data], Some(&file));
        let kubectl = wharf.kubectl();
        assert_eq!(kubectl.ok("get ns default -o name"), "namespace/default\n");
        let names = kubectl.ok("config get-contexts -o name");
        assert_eq!(names.lines().filter(|name| *name == "wharf").count(), 1, "{names}");
        assert!(names.contains("production"), "{names}");
        assert!(wharf.stop("TERM").success());
    }
}

#[test]
fn a_named_file_is_the_only_one_written() {
    let home = TempDir::new().expect("a temporary folder");
    let own = home.path().join(".kube/config");
    std::fs::create_dir(home.path().join(".kube")).expect("a folder");
    std::fs::write(&own, OTHERS).expect("a file");
    let file = home.path().join("apart");
    let path = file.display().to_string();
    let wharf = up(home, &file, &["--kubeconfig", &path]);
    assert_eq!(wharf.kubectl().ok("config get-contexts -o name"), "wharf\n");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_to_string(&own).expect("it is there"), OTHERS);
}

#[test]
fn a_file_that_is_no_kubeconfig_is_left_as_it_is() {
    let home = TempDir::new().expect("a temporary folder");
    let file = home.path().join("broken");
    std::fs::write(&file, "clusters: [\n").expect("a file");
    let mut command = Command::new(wharf_binary());
    command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0"]);
    command.env("HOME", home.path()).env("KUBECONFIG", &file);
    let error = run(command).fails_with(2);
    assert!(error.contains("broken"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "clusters: [\n");
}

#[test]
fn a_command_runs_in_the_lab_and_gives_its_status() {
    let home = TempDir::new().expect("a temporary folder");
    let kubectl = newest_kubectl().display().to_string();
    let with = |arguments: &[&str]| {
        let file = home.path().join("config").display().to_string();
        let mut command = Command::new(wharf_binary());
        command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--kubeconfig", &file, "--"]);
        command.args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG");
        run(command)
    };
    let output = with(&[&kubectl, "get", "ns", "default", "-o", "name"]).ok();
    assert_eq!(output, "namespace/default\n", "stdout is the command's alone");
    with(&["sh", "-c", "exit 7"]).fails_with(7);
    with(&["sh", "-c", "test -n \"$KUBECONFIG\""]).ok();
}

#[test]
fn a_token_opens_the_api_and_no_token_does_not() {
    let wharf = Wharf::ephemeral();
    let token = wharf.wharf(&["token", "--ttl", "1h"]).ok();
    let token = token.trim();
    assert!(!token.is_empty() && !token.contains(char::is_whitespace), "{token:?}");
    let empty = wharf.folder().join("empty");
    std::fs::write(&empty, "").expect("a temporary folder can be written");
    let anonymous = Kubectl::new(&newest_kubectl(), &empty, wharf.folder());
    let server = ["--server", &wharf.url, "--insecure-skip-tls-verify"];
    let get = ["get", "ns", "default", "-o", "name"];
    let with_token = [&server[..], &["--token", token], &get].concat();
    assert_eq!(anonymous.args(&with_token).ok(), "namespace/default\n");
    for bad in ["nonsense", &format!("{token}x")] {
        let error = anonymous.args(&[&server[..], &["--token", bad], &get].concat()).fails();
        assert!(error.contains("nauthorized") || error.contains("logged in"), "{error}");
    }
    wharf.wharf(&["token", "--ttl", "soon"]).fails_with(2);
}

fn up(home: TempDir, file: &Path, arguments: &[&str]) -> Wharf {
    up_with(home, file, &[&["--ephemeral"], arguments].concat(), None)
}

fn up_with(home: TempDir, file: &Path, arguments: &[&str], variable: Option<&Path>) -> Wharf {
    let mut command = Command::new(wharf_binary());
    command.args(["up", "--listen", "127.0.0.1:0"]).args(arguments).env("HOME", home.path());
    match variable {
        Some(variable) => command.env("KUBECONFIG", variable),
        None => command.env_remove("KUBECONFIG"),
    };
    Wharf::launch(command, file.to_owned(), home)
}

#[cfg(unix)]
fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).expect("the file is there").permissions().mode() & 0o777
}

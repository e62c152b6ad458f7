//! `kubectl exec`, `attach`, `run -it` and `port-forward` with real kubectls, over WebSocket and SPDY.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{
    Finished, Kubectl, Options, Wharf, kubectls, lab_file, newest_kubectl, run_with_input, wait_for,
};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, image: 'nginx:1.27', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: site}
spec: {selector: {app: web}, ports: [{port: 8080, targetPort: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  containers:
  - {name: first, image: 'busybox:1.36', command: [sh, -c, 'while true; do date; sleep 5; done']}
  - {name: second, image: 'busybox:1.36', command: [sleep, infinity]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  containers:
  - {name: bare, image: 'registry.k8s.io/pause:3.9'}
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  containers:
  - {name: shell, image: 'busybox:1.36', stdin: true, tty: true}
";

fn lab() -> Wharf {
    let wharf = Wharf::start(&Options::default());
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.input("apply -f -", PODS).ok();
    wait_for("all pods to run", || {
        let pods = kubectl.items("get pods");
        let up = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        if up == 4 { Ok(()) } else { Err(format!("{up} of 4")) }
    });
    wharf
}

/// Each kubectl with the transports it has: its own choice, and without WebSocket.
fn each(wharf: &Wharf, mut check: impl FnMut(&dyn Fn(&[&str]) -> Command, &str)) {
    for (version, binary) in kubectls() {
        let kubectl = wharf.with_kubectl(binary);
        check(&|arguments| kubectl.command(arguments), version);
        check(
            &|arguments| {
                let mut command = kubectl.command(arguments);
                command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
                command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
                command
            },
            &format!("{version} over SPDY"),
        );
    }
}

#[test]
fn exec_by_every_kubectl() {
    let wharf = lab();
    each(&wharf, |command, version| {
        let run = |arguments: &[&str], input: &str| run_with_input(command(arguments), input);
        assert_eq!(run(&["exec", "web", "--", "hostname"], "").ok(), "web\n", "{version}");
        let failed =
            run(&["exec", "box", "-c", "second", "--", "sh", "-c", "echo no >&2; exit 3"], "");
        let errors = failed.fails_with(3);
        assert!(errors.starts_with("no\n"), "{version}: {errors}");
        assert!(errors.contains("command terminated with exit code 3"), "{version}: {errors}");
        let lines = "some\nlines\n".repeat(5_000);
        let echoed = run(&["exec", "-i", "box", "-c", "first", "--", "cat"], &lines).ok();
        assert!(echoed == lines, "{version}: {} of {} bytes", echoed.len(), lines.len());
        let script =
            run(&["exec", "-i", "web", "--", "bash"], "for i in 1 2; do\necho $i\ndone\nexit 4\n");
        assert_eq!(
            (script.stdout.as_str(), script.code),
            ("1\n2\n", Some(4)),
            "{version}: {script}"
        );
        let page =
            run(&["exec", "web", "--", "sh", "-c", "curl -s site:8080 | grep title"], "").ok();
        assert_eq!(page, "<title>Welcome to nginx!</title>\n", "{version}");
        let missing = run(&["exec", "web", "--", "xyz"], "").fails_with(1);
        assert!(
            missing.contains("error executing command in container: failed to exec in container: failed to start exec"),
            "{version}: {missing}"
        );
        assert!(
            missing.contains("exec: \"xyz\": executable file not found in $PATH: unknown"),
            "{version}: {missing}"
        );
        let unknown = run(&["exec", "web", "--", "sh", "-c", "xyz"], "").fails_with(127);
        assert!(unknown.contains("sh: xyz: not found"), "{version}: {unknown}");
        run(&["exec", "bare", "--", "sh"], "").fails_with(1);
        let container = run(&["exec", "web", "-c", "x", "--", "ls"], "").fails_with(1);
        assert!(
            container.contains("container x is not valid for pod web"),
            "{version}: {container}"
        );
        let pod = run(&["exec", "nobody", "--", "ls"], "").fails_with(1);
        assert!(pod.contains("pods \"nobody\" not found"), "{version}: {pod}");
    });
}

/// Runs a kubectl at a pseudo-terminal, types into it, and gives what is seen.
fn at_terminal(kubectl: &Kubectl, arguments: &str, typed: &str) -> Finished {
    let binary = newest_kubectl();
    let command = kubectl.command(&[]);
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &format!("{} {arguments}", binary.display()), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    run_with_input(script, typed)
}

#[test]
fn shells_at_a_terminal() {
    if !Path::new("/usr/bin/script").exists() {
        return;
    }
    let wharf = lab();
    let kubectl = wharf.kubectl();
    let seen = at_terminal(
        &kubectl,
        "exec -it web -- bash",
        "echo $((6 * 7)); cat /etc/hostname\rcurl -s site:8080 | grep title\rexit 5\r",
    );
    assert_eq!(seen.code, Some(5), "{seen}");
    assert!(
        seen.stdout.contains("root@web:/# ") && seen.stdout.contains("\r\n42\r\nweb\r\n"),
        "{seen}"
    );
    assert!(seen.stdout.contains("\r\n<title>Welcome to nginx!</title>\r\n"), "{seen}");

    // A pod whose first process is a shell: what is typed there ends it.
    let seen = at_terminal(&kubectl, "attach -it shell", "echo hello $HOSTNAME\rexit 0\r");
    assert!(seen.stdout.contains("hello shell\r\n"), "{seen}");
    wait_for("the shell to be started again", || {
        let pod = kubectl.json("get pod shell");
        let status = &pod["status"]["containerStatuses"][0];
        let again = status["restartCount"] == 1 && status["state"]["running"].is_object();
        if again { Ok(()) } else { Err(status.to_string()) }
    });

    let seen = at_terminal(
        &kubectl,
        "run -i --tty visitor --rm --image=busybox:1.28 --restart=Never -- sh",
        "wget -q -O- http://site:8080 | grep title\rexit 0\r",
    );
    assert_eq!(seen.code, Some(0), "{seen}");
    assert!(seen.stdout.contains("<title>Welcome to nginx!</title>"), "{seen}");
    assert!(seen.stdout.contains("pod \"visitor\" deleted"), "{seen}");
    assert_eq!(kubectl.run("get pod visitor").code, Some(1));
}

/// The load generator of the autoscaling walk-through, ended by Ctrl-C.
#[test]
fn the_load_generator() {
    if !Path::new("/usr/bin/script").exists() {
        return;
    }
    let wharf = lab();
    let kubectl = wharf.kubectl();
    let binary = newest_kubectl();
    let line = "run -i --tty load-generator --rm --image=busybox:1.28 --restart=Never -- /bin/sh -c 'while sleep 0.01; do wget -q -O- http://site:8080; done'";
    let command = kubectl.command(&[]);
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &format!("{} {line}", binary.display()), "/dev/null"]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let mut child = script
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("script starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let title = b"Welcome to nginx!";
    while seen.windows(title.len()).filter(|window| window == title).count() < 10 {
        let length = stdout.read(&mut buffer).expect("kubectl writes");
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..length]);
    }
    stdin.write_all(b"\x03").expect("kubectl reads");
    stdout.read_to_end(&mut seen).expect("kubectl ends");
    let status = child.wait().expect("the child was started here");
    let seen = String::from_utf8_lossy(&seen);
    assert!(!status.success(), "{seen}");
    assert!(seen.contains("pod \"load-generator\" deleted"), "{seen}");
}

#[test]
fn attached_to_a_log() {
    let wharf = lab();
    each(&wharf, |command, version| {
        let mut attach = command(&["attach", "box", "-c", "first"]);
        let mut child = attach
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let mut text = String::new();
        let mut byte = [0];
        let mut stdout = child.stdout.take().expect("stdout is piped");
        while text.matches('\n').count() < 2 && stdout.read(&mut byte).expect("kubectl writes") == 1
        {
            text.push(char::from(byte[0]));
        }
        let _ = child.kill();
        let _ = child.wait();
        let dates = text.lines().filter(|line| line.contains("UTC"));
        assert_eq!(dates.count(), 2, "{version}: {text}");
    });
}

/// The page that a forwarded port shows, asked for twice on one connection.
fn page(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("kubectl listens");
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("kubectl reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("kubectl writes");
    text
}

#[test]
fn ports_are_forwarded() {
    let wharf = lab();
    each(&wharf, |command, version| {
        for (what, port) in [("pod/web", ":80"), ("svc/site", ":8080")] {
            let mut child = command(&["port-forward", what, port])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("kubectl starts");
            let mut line = String::new();
            let mut byte = [0];
            let mut stdout = child.stdout.take().expect("stdout is piped");
            while !line.ends_with('\n') && stdout.read(&mut byte).expect("kubectl writes") == 1 {
                line.push(char::from(byte[0]));
            }
            let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
            let address = address.unwrap_or_else(|| panic!("{version} {what}: {line}"));
            for _ in 0..3 {
                let text = page(address);
                let titles = text.matches("<title>Welcome to nginx!</title>").count();
                assert_eq!(titles, 2, "{version} {what}: {text}");
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    });
    // Nobody listens there.
    let kubectl = wharf.kubectl();
    let mut child = kubectl
        .command(&["port-forward", "pod/web", ":81"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut line = String::new();
    let mut byte = [0];
    let mut stdout = child.stdout.take().expect("stdout is piped");
    while !line.ends_with('\n') && stdout.read(&mut byte).expect("kubectl writes") == 1 {
        line.push(char::from(byte[0]));
    }
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
    let mut stream = TcpStream::connect(address.expect("an address")).expect("kubectl listens");
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    assert_eq!(text, b"");
    let mut errors = String::new();
    let mut stderr = child.stderr.take().expect("stderr is piped");
    while !errors.contains("connection refused") && stderr.read(&mut byte).is_ok_and(|n| n == 1) {
        errors.push(char::from(byte[0]));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(errors.contains("failed to connect to localhost:81 inside namespace"), "{errors}");
}

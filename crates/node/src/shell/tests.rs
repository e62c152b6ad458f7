//! What is typed and what is seen, over a small cluster and no clock.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;

/// A world with a clock of its own: what is to be typed comes at once, time passes when nothing is left.
struct World {
    now: Time,
    typed: VecDeque<Wake>,
    output: Vec<u8>,
    errors: Vec<u8>,
    objects: Vec<Arc<Object>>,
    written_max: usize,
}

impl Host for World {
    fn now(&self) -> Time {
        self.now
    }

    fn wait(&mut self, until: Option<Time>) -> Wake {
        match (self.typed.pop_front(), until) {
            (Some(wake), _) => wake,
            (None, Some(until)) => {
                self.now = self.now.max(until);
                Wake::Time
            }
            (None, None) => Wake::Gone,
        }
    }

    fn poll(&mut self, _: bool) -> Wake {
        Wake::Time
    }

    fn write(&mut self, to: Descriptor, bytes: &[u8]) -> bool {
        match to {
            Descriptor::Stdout => self.output.extend_from_slice(bytes),
            Descriptor::Stderr => self.errors.extend_from_slice(bytes),
        }
        self.output.len() < self.written_max
    }

    fn size(&self) -> (u16, u16) {
        (80, 24)
    }

    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.iter().find(|object| object.kind() == kind && object.key() == key).cloned()
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let all = self.objects.iter().filter(|object| {
            object.kind() == kind && namespace.is_none_or(|own| object.key().namespace == own)
        });
        all.cloned().collect()
    }

    fn usage(&self, _: &ObjectKey, _: &str) -> Option<(f64, u64)> {
        Some((0.25, 20 << 20))
    }
}

fn object<T: Resource + Typed>(value: Value) -> Arc<Object> {
    let typed: T = serde_json::from_value(value).expect("an object");
    Arc::new(Object::from_typed(Box::new(typed), 1))
}

fn pod_of(name: &str, image: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "study", "labels": {"app": name}},
        "spec": {
            "nodeName": "n",
            "containers": [{
                "name": "c", "image": image, "ports": [{"containerPort": 80, "name": "http"}],
                "env": [
                    {"name": "COLOR", "value": "blue $(MODE)"},
                    {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumeMounts": [{"name": "s", "mountPath": "/etc/settings"}],
            }],
            "volumes": [{"name": "s", "configMap": {"name": "settings"}}],
        },
        "status": {"phase": "Running", "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": image, "imageID": "", "ready": true,
                "restartCount": 0, "state": {"running": {}}}]},
    })
}

fn objects() -> Vec<Arc<Object>> {
    let service = |name: &str, address: &str, port: i32| {
        json!({"metadata": {"name": name, "namespace": "study"},
            "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [{"port": port, "targetPort": 80}]}})
    };
    vec![
        object::<Pod>(pod_of("web", "nginx:latest", "10.0.0.7")),
        object::<k8s_openapi::api::core::v1::Service>(service("web", "10.100.0.7", 80)),
        object::<k8s_openapi::api::core::v1::Service>(service("empty", "10.100.0.8", 80)),
        object::<k8s_openapi::api::core::v1::ConfigMap>(json!({
            "metadata": {"name": "settings", "namespace": "study"},
            "data": {"MODE": "fast", "b": "two\nlines\n"}
        })),
    ]
}

struct Seen {
    code: i32,
    output: String,
    errors: String,
    took: u64,
}

fn run(image: &str, command: &[&str], tty: bool, typed: &[Wake]) -> Seen {
    let pod: Pod = serde_json::from_value(pod_of("me", image, "10.0.0.9")).expect("a pod");
    let container = pod.spec.as_ref().expect("a spec").containers[0].clone();
    let mut world = World {
        now: Time::from_seconds(1_000),
        typed: typed.iter().cloned().collect(),
        output: Vec::new(),
        errors: Vec::new(),
        objects: objects(),
        written_max: 1 << 20,
    };
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let code = exec(&mut world, &pod, &container, &command, tty);
    Seen {
        code,
        output: String::from_utf8(world.output).expect("text"),
        errors: String::from_utf8(world.errors).expect("text"),
        took: world.now.since(Time::from_seconds(1_000)).as_secs(),
    }
}

fn sh(script: &str) -> Seen {
    run("nicolaka/netshoot", &["sh", "-c", script], false, &[])
}

#[test]
fn scripts() {
    for (script, output, code) in [
        ("echo a; echo b", "a\nb\n", 0),
        ("echo a && false && echo b || echo c", "a\nc\n", 0),
        ("exit 3; echo a", "", 3),
        ("(exit 4); echo $?", "4\n", 0),
        ("xyz", "", 127),
        ("A=1; B=\"$A 2\"; echo \"$B\" '$A' $((A + 2 * 3))", "1 2 $A 7\n", 0),
        ("for i in 1 2 3; do if [ $i = 2 ]; then continue; fi; echo $i; done", "1\n3\n", 0),
        ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); echo -n $i; done", "123", 0),
        ("while true; do echo x; break; done; until false; do exit 5; done", "x\n", 5),
        ("printf 'b\\na\\nb\\n' | sort | uniq -c | head -n 1 | tr -d ' '", "1a\n", 0),
        ("echo $(echo a; echo b) \"$(echo c  d)\"", "a b c d\n", 0),
        (
            "echo hello > /tmp/x; echo more >> /tmp/x; cat /tmp/x; wc -l < /tmp/x",
            "hello\nmore\n2\n",
            0,
        ),
        ("echo gone > /dev/null; xyz 2> /dev/null; echo $?", "127\n", 0),
        ("seq 3 | grep -v 2 | tail -1; echo abc | grep -q x || echo no", "3\nno\n", 0),
        ("echo ${NOTHING:-some} $COLOR $ME $MODE", "some blue fast me fast\n", 0),
        ("sh -c 'echo $0 $1' a b", "a b\n", 0),
        ("cd /tmp && pwd; cd /nowhere || echo no", "/tmp\nno\n", 0),
        ("! true; echo $?; { echo a; echo b; } | wc -l", "1\n2\n", 0),
        ("echo 'a:b:c' | cut -d: -f2", "b\n", 0),
        ("true &", "", 0),
    ] {
        let seen = sh(script);
        assert_eq!((seen.output.as_str(), seen.code), (output, code), "{script}: {}", seen.errors);
    }
    assert_eq!(sh("xyz").errors, "sh: xyz: not found\n");
    assert_eq!(sh("while true; do").code, 2);
    assert_eq!(sh("sleep 1; sleep 2m").took, 121);
}

#[test]
fn a_script_that_runs_itself_comes_to_an_end() {
    assert_eq!(sh("echo 'sh /tmp/a' > /tmp/a; sh /tmp/a").code, 2);
    let endless = sh("while true; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
    assert_eq!(endless.code, 129, "the client has gone");
}

#[test]
fn files_and_environment() {
    let resolver = sh("cat /etc/resolv.conf").output;
    assert_eq!(
        resolver,
        "search study.svc.cluster.local svc.cluster.local cluster.local ec2.internal\nnameserver 10.100.0.10\noptions ndots:5\n"
    );
    assert_eq!(sh("cat /etc/settings/b; ls /etc/settings").output, "two\nlines\nMODE\nb\n");
    assert_eq!(sh("cat /etc/hostname; hostname; hostname -i").output, "me\nme\n10.0.0.9\n");
    let env = sh("env").output;
    for line in
        ["HOSTNAME=me\n", "MODE=fast\n", "COLOR=blue fast\n", "WEB_SERVICE_HOST=10.100.0.7\n"]
    {
        assert!(env.contains(line), "{line} in {env}");
    }
    let missing = sh("cat /etc/none");
    assert_eq!(
        (missing.code, missing.errors.as_str()),
        (1, "cat: can't open '/etc/none': No such file or directory\n")
    );
    let php = run("registry.k8s.io/hpa-example", &["cat", "/var/www/html/index.php"], false, &[]);
    assert!(php.output.starts_with("<?php") && php.output.contains("OK!"), "{}", php.output);
    assert!(sh("df -hT /").output.contains("overlay"));
    assert!(sh("lsblk").output.contains("nvme"));
}

#[test]
fn names_and_pages() {
    let page = sh("curl -s web | grep title");
    assert_eq!((page.output.as_str(), page.code), ("<title>Welcome to nginx!</title>\n", 0));
    assert!(sh("curl web").errors.contains("% Total"), "the meter, as it is no terminal");
    for (script, code, errors) in [
        ("curl -s nobody", 6, ""),
        ("curl -sS nobody", 6, "curl: (6) Could not resolve host: nobody\n"),
        (
            "curl -sS empty",
            7,
            "curl: (7) Failed to connect to empty port 80 after 0 ms: Could not connect to server\n",
        ),
        (
            "curl -sS web:81",
            7,
            "curl: (7) Failed to connect to web port 81 after 0 ms: Could not connect to server\n",
        ),
        ("curl -sf web/none", 22, "curl: (22) The requested URL returned error: 404\n"),
        ("wget -q -O- http://nobody", 1, "wget: bad address 'nobody'\n"),
        (
            "wget -q -O- http://empty",
            1,
            "wget: can't connect to remote host (10.100.0.8): Connection refused\n",
        ),
    ] {
        let seen = sh(script);
        assert_eq!((seen.code, seen.errors.as_str()), (code, errors), "{script}: {}", seen.output);
    }
    for script in [
        "wget -q -O- http://web",
        "curl -s http://10.0.0.7/",
        "curl -s web.study.svc.cluster.local",
        "curl -s 10.100.0.7",
    ] {
        assert!(sh(script).output.contains("<title>Welcome to nginx!</title>"), "{script}");
    }
    assert_eq!(sh("curl -s -o /dev/null -w '%{http_code}\\n' web").output, "200\n");
    let public = sh("curl -s ipinfo.io/ip").output;
    assert!(public.starts_with("203.0.113."), "{public}");
    let silent = sh("curl -sS -m 3 10.0.0.250");
    assert_eq!((silent.code, silent.took), (28, 3));
    assert_eq!(
        sh("nslookup web").output,
        "Server:\t\t10.100.0.10\nAddress:\t10.100.0.10#53\n\nName:\tweb.study.svc.cluster.local\nAddress: 10.100.0.7\n\n"
    );
    assert_eq!(sh("dig +short web.study.svc.cluster.local; dig +short web").output, "10.100.0.7\n");
    let pinged = sh("ping -c 2 10.0.0.7");
    assert!(
        pinged.output.contains("2 packets transmitted, 2 received, 0% packet loss"),
        "{}",
        pinged.output
    );
    assert_eq!(sh("ping -c 1 10.100.0.7").code, 1, "the address of a Service answers no ping");
    assert!(sh("ip -c a").output.contains("inet 10.0.0.9/32 scope global eth0"));
}

fn typed(text: &str) -> Wake {
    Wake::Input(text.as_bytes().to_vec())
}

#[test]
fn a_terminal() {
    let seen = run(
        "busybox:1.28",
        &["sh"],
        true,
        &[typed("ech"), typed("x\x7fo hi\r"), typed("\x1b[A\r"), typed("exit 7\r")],
    );
    assert_eq!(seen.code, 7);
    assert_eq!(
        seen.output,
        "/ # echx\u{8} \u{8}o hi\r\nhi\r\n/ # \r\u{1b}[K/ # echo hi\r\nhi\r\n/ # exit 7\r\n"
    );
    let ended = run("nginx", &["bash"], true, &[typed("false\r"), typed("\x04")]);
    assert_eq!(
        (ended.code, ended.output.ends_with("root@me:/# exit\r\n")),
        (1, true),
        "{}",
        ended.output
    );
    let stopped = run(
        "busybox",
        &["sh"],
        true,
        &[
            typed("while true; do sleep 1; done\r"),
            Wake::Time,
            typed("\x03"),
            typed("echo $?\r"),
            typed("exit\r"),
        ],
    );
    assert!(stopped.output.contains("^C\r\n/ # echo $?\r\n130\r\n"), "{}", stopped.output);
    let alone = run("busybox", &["sleep", "100"], true, &[typed("\x03")]);
    assert_eq!(alone.code, 130);
}

#[test]
fn input_without_a_terminal() {
    let piped = [typed("echo a\nfor i in 1 2\ndo echo $i\ndone\n"), typed("exit 3"), Wake::End];
    let seen = run("busybox", &["sh"], false, &piped);
    assert_eq!((seen.output.as_str(), seen.code), ("a\n1\n2\n", 3));
    let cat = run("busybox", &["cat"], false, &[typed("some "), typed("text\nmore"), Wake::End]);
    assert_eq!((cat.output.as_str(), cat.code), ("some text\nmore", 0));
    let read = run("busybox", &["sh", "-c", "read a b; echo $b $a"], false, &[typed("1 2 3\n")]);
    assert_eq!(read.output, "2 3 1\n");
}

#[test]
fn the_process_of_a_container() {
    let words = |image: &str, command: &[&str], args: &[&str]| {
        let owned = |words: &[&str]| {
            (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect())
        };
        first_process(&Container {
            image: Some(image.to_owned()),
            command: owned(command),
            args: owned(args),
            ..Container::default()
        })
        .join(" ")
    };
    assert_eq!(words("busybox:1.28", &[], &[]), "sh");
    assert_eq!(words("busybox:1.28", &[], &["date"]), "date");
    assert_eq!(words("busybox", &["sleep"], &["5"]), "sleep 5");
    assert_eq!(words("polinux/stress", &[], &["--cpu", "2"]), "stress --cpu 2");
}

proptest::proptest! {
    #[test]
    fn whatever_is_typed_nothing_panics(
        words in proptest::collection::vec(
            "echo|cat|grep|head -[0-9]|cut -[df]|tr|printf|seq [0-9]|test|date|ls|ip|ping -c 1|curl|wget|top -n1|\\||;|&&|>|/tmp/x|\\$\\(|\\)|'|%[sd%]|-[a-z]|é|\\PC{0,3}", 0..12),
        tty: bool,
    ) {
        let script = words.join(" ");
        let script = if script.contains("yes") { String::new() } else { script };
        run("nicolaka/netshoot", &["sh", "-c", &script], tty, &[Wake::End]);
        let keys = [typed(&script), typed("\r\x1b[A\x7f\x15\x17\x0c\r"), Wake::End];
        run("nicolaka/netshoot", &["sh"], true, &keys);
    }
}

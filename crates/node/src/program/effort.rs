//! What a process uses, read from its command: loops with their requests, tools that burn cpu or
//! hold memory.

use std::time::Duration;

use wharf_load::{Cycle, Phase, Target, Window};
use wharf_model::quantity::Quantity;

use super::{Run, seconds};

/// What a process uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effort {
    /// Loops, each of which goes on for ever.
    pub cycles: Vec<Cycle>,
    /// Tools that burn cpu or hold memory, by the time since the start of the process.
    pub windows: Vec<Window>,
    /// Whether it is a server: somebody may ask it.
    pub listens: bool,
}

/// Modelled: processor time that it takes to start a small program.
const START_SECONDS: f64 = 0.002;
/// Modelled: the same for one that looks up a name and connects.
const CLIENT_SECONDS: f64 = 0.005;
/// Modelled: processor time of what the shell does itself.
const BUILT_IN_SECONDS: f64 = 0.000_01;
/// Modelled: bytes that a tool which burns cpu holds.
const TOOL_BYTES: f64 = 1_048_576.0;
/// Modelled: processor time that `stress` takes to touch a megabyte. The Kubernetes documentation's
/// memory demo (150M, a second's hang) is seen at 67m.
const TOUCH_SECONDS_PER_MEGABYTE: f64 = 0.000_478;
/// `stress --vm` without `--vm-bytes` takes 256 MB.
const VM_BYTES_DEFAULT: f64 = 268_435_456.0;
/// More workers than this are not believed.
const WORKERS_MAX: f64 = 4_096.0;

impl Effort {
    /// Takes in what a loop does whose first round begins at `at`. One whose round never ends is
    /// what the round is; any other goes round and round.
    pub(super) fn take_round(
        &mut self,
        at: Duration,
        round: &Effort,
        phases: Vec<Phase>,
        once: bool,
    ) {
        self.listens |= round.listens;
        self.cycles.extend(round.cycles.iter().cloned());
        if once {
            self.windows.extend(round.windows.iter().map(|window| window.shifted(at, None)));
        } else {
            self.cycles.push(Cycle { phases });
        }
    }
}

/// Windows as they are seen from outside.
trait Shifted {
    fn shifted(&self, by: Duration, cut: Option<Duration>) -> Self;
}

impl Shifted for Window {
    fn shifted(&self, by: Duration, cut: Option<Duration>) -> Self {
        let until = match (self.until, cut) {
            (Some(until), Some(cut)) => Some(until.min(cut)),
            (until, cut) => until.or(cut),
        };
        Self { from: self.from + by, until: until.map(|until| until + by), ..self.clone() }
    }
}

/// What it costs to begin a command.
pub(super) fn start_of(name: &str) -> Phase {
    Phase::Work(match name {
        "wget" | "curl" => CLIENT_SECONDS,
        "true" | ":" | "false" | "set" | "cd" | "export" | "echo" | "printf" | "exit" | "trap"
        | "wait" | "exec" => BUILT_IN_SECONDS,
        _ => START_SECONDS,
    })
}

/// Whether a command does nothing but burn one core until it is stopped.
pub(super) fn is_busy(name: &str, arguments: &[&str]) -> bool {
    let endless = |word: &&str| word.contains("/dev/zero") || word.contains("/dev/urandom");
    match name {
        "yes" => true,
        "dd" => {
            arguments.iter().any(endless)
                && !arguments.iter().any(|word| word.starts_with("count="))
        }
        "cat" | "md5sum" | "sha1sum" | "sha256sum" | "sha512sum" | "gzip" => {
            arguments.iter().any(endless)
        }
        _ => false,
    }
}

/// The host and port of a URL; without a scheme it is HTTP.
pub(crate) fn target_of(url: &str) -> Option<Target> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    (!host.is_empty()).then(|| Target { host: host.to_lowercase().into(), port })
}

impl Run<'_> {
    /// `wget`, `curl`: one request, answered at once as far as the script's times go.
    pub(super) fn request(&mut self, arguments: &[&str]) {
        let with_scheme = arguments.iter().find(|word| word.contains("://"));
        let url = with_scheme.or_else(|| arguments.iter().rfind(|word| !word.starts_with('-')));
        match url.and_then(|url| target_of(url)) {
            Some(target) => {
                self.phases.push(Phase::Request(target));
                self.code = 0;
            }
            None => self.code = 1,
        }
        self.at += Duration::from_millis(5);
    }

    /// `timeout 0.5s COMMAND`.
    pub(super) fn timeout(&mut self, arguments: &[&str]) {
        let mut rest = arguments.iter().copied().skip_while(|word| word.starts_with('-'));
        let Some(limit) = rest.next().and_then(seconds) else {
            self.code = 125;
            return;
        };
        let command: Vec<&str> = rest.collect();
        let mut inner = self.child();
        inner.command(&command);
        self.work = inner.work;
        let ends = !inner.forever && inner.at <= limit;
        let took = if ends { inner.at } else { limit };
        let open = inner.effort.windows.iter().filter(|window| window.until.is_none());
        if open.map(|window| window.cores).sum::<f64>() > 0.0 {
            self.phases.push(Phase::Burn(took.as_secs_f64()));
        } else {
            self.phases.push(Phase::Pause(took.as_secs_f64()));
        }
        let at = self.at;
        let windows = inner.effort.windows.iter();
        self.effort.windows.extend(windows.map(|window| window.shifted(at, Some(took))));
        self.at += took;
        self.code = if ends { inner.code } else { 124 };
    }

    /// A command or loop beside the script, as `&` starts it.
    pub(super) fn beside(&mut self, work: impl FnOnce(&mut Self)) {
        let mut inner = self.child();
        work(&mut inner);
        self.work = inner.work;
        let at = self.at;
        let windows = inner.effort.windows.iter();
        self.effort.windows.extend(windows.map(|window| window.shifted(at, None)));
        self.effort.cycles.extend(inner.effort.cycles);
        self.effort.listens |= inner.effort.listens;
        self.code = 0;
    }

    /// One core, until it is stopped.
    pub(super) fn burn(&mut self) {
        let window = Window { from: self.at, until: None, cores: 1.0, memory: TOOL_BYTES };
        self.effort.windows.push(window);
        self.forever = true;
    }

    /// `stress --cpu 2 --vm 1 --vm-bytes 250M --vm-hang 1 --timeout 60s`, and the one of
    /// `vish/stress`: `-cpus 2 -mem-total 150Mi`.
    pub(super) fn stress(&mut self, arguments: &[&str]) {
        let value = |names: &[&str]| {
            let mut words = arguments.iter().enumerate();
            words.find_map(|(index, word)| match word.split_once('=') {
                Some((name, value)) if names.contains(&name) => Some(value),
                _ if names.contains(word) => arguments.get(index + 1).copied(),
                _ => None,
            })
        };
        let number = |names: &[&str]| {
            let number = value(names).and_then(|text| text.parse::<f64>().ok());
            number.map(|number| number.clamp(0.0, WORKERS_MAX))
        };
        let cpu = number(&["--cpu", "-c", "-cpus", "--cpus"]).unwrap_or(0.0);
        let workers = number(&["--vm", "-m"]).unwrap_or(0.0);
        let each = value(&["--vm-bytes"]).and_then(bytes).unwrap_or(VM_BYTES_DEFAULT);
        let total = value(&["-mem-total", "--mem-total"]).and_then(bytes).unwrap_or(0.0);
        let hang = number(&["--vm-hang"]);
        let touch = TOUCH_SECONDS_PER_MEGABYTE * each / 1e6;
        let share = match hang {
            // Zero is for ever: it touches its memory once.
            Some(0.0) => 0.0,
            Some(hang) => touch / (touch + hang),
            None => 1.0,
        };
        if cpu == 0.0 && workers == 0.0 && total == 0.0 {
            self.print("`stress' imposes certain types of compute stress on your system");
            return;
        }
        let timeout = value(&["--timeout", "-t"]).and_then(seconds);
        self.effort.windows.push(Window {
            from: self.at,
            until: timeout.map(|timeout| self.at + timeout),
            cores: cpu + workers * share,
            memory: workers * each + total + TOOL_BYTES,
        });
        match timeout {
            Some(timeout) => {
                self.phases.push(Phase::Burn(timeout.as_secs_f64()));
                self.at += timeout;
                self.code = 0;
            }
            None => {
                self.forever = true;
                self.heeds_term = true;
            }
        }
    }

    /// A walk that starts where this one is, within the same bounds.
    fn child(&self) -> Self {
        let mut child = Run::new(self.container);
        child.at = Duration::ZERO;
        child.work = self.work;
        child
    }
}

/// `250M`, `1G`, `150Mi`: bytes as `stress` takes them, where `M` is 2^20.
fn bytes(text: &str) -> Option<f64> {
    let binary = |unit: f64| text[..text.len() - 1].parse::<f64>().ok().map(|n| n * unit);
    let amount = match text.as_bytes().last()? {
        b'k' | b'K' => binary(1_024.0),
        b'm' | b'M' => binary(1_048_576.0),
        b'g' | b'G' => binary(1_073_741_824.0),
        b'b' | b'B' => binary(1.0),
        _ => Quantity::parse(text).ok().map(|quantity| quantity.as_f64()),
    };
    amount.filter(|bytes| bytes.is_finite() && *bytes >= 0.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::super::{Program, program_of};
    use super::*;

    fn run(image: &str, command: &[&str], args: &[&str]) -> Program {
        let owned = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            (!words.is_empty()).then_some(words)
        };
        program_of(&Container {
            image: Some(image.to_owned()),
            command: owned(command),
            args: owned(args),
            ..Container::default()
        })
    }

    fn sh(script: &str) -> Effort {
        run("busybox", &["/bin/sh", "-c", script], &[]).effort
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.into(), port }
    }

    #[test]
    fn a_loop_that_asks_is_a_client() {
        for (script, expected) in [
            ("while sleep 0.01; do wget -q -O- http://php-apache; done", target("php-apache", 80)),
            (
                "while true; do wget -q -O- http://php-apache.shop.svc.cluster.local/x; done",
                target("php-apache.shop.svc.cluster.local", 80),
            ),
            (
                "while true; do curl -s -o /dev/null http://web:8080/; sleep 1; done",
                target("web", 8080),
            ),
            ("while true; do curl -s $URL web; sleep 1; done", target("web", 80)),
        ] {
            let effort = sh(script);
            assert_eq!(effort.cycles.len(), 1, "{script}");
            let phases = &effort.cycles[0].phases;
            assert!(phases.contains(&Phase::Request(expected)), "{script}: {phases:?}");
            assert!(!effort.listens);
        }
        assert_eq!(target_of("ftp://x"), None);
        assert_eq!(target_of("https://user@X:8443/a?b"), Some(target("x", 8443)));
    }

    #[test]
    fn what_burns_and_what_holds_memory() {
        let hamster = sh("while true; do timeout 0.5s yes >/dev/null; sleep 0.5s; done");
        let phases = &hamster.cycles[0].phases;
        assert!(
            phases.contains(&Phase::Burn(0.5)) && phases.contains(&Phase::Pause(0.5)),
            "{phases:?}"
        );
        let busy = |script: &str| {
            let windows = sh(script).windows;
            (windows.len(), windows.iter().map(|window| window.cores).sum::<f64>())
        };
        assert_eq!(busy("yes > /dev/null"), (1, 1.0));
        assert_eq!(busy("yes > /dev/null & yes > /dev/null & wait"), (2, 2.0));
        assert_eq!(busy("cat /dev/zero > /dev/null"), (1, 1.0));
        assert_eq!(busy("dd if=/dev/zero of=/x count=1; sleep 5"), (0, 0.0));
        let two =
            sh("while true; do wget -q http://a; done & while true; do wget -q http://b; done");
        assert_eq!(two.cycles.len(), 2);
        assert_eq!(
            sh("timeout 30 yes; sleep 5").windows[0].until,
            Some(Duration::from_millis(30_020))
        );
    }

    #[test]
    fn stress_as_the_labs_call_it() {
        for (image, command, args, cores, mebi) in [
            (
                "polinux/stress",
                vec!["stress"],
                vec!["--vm", "1", "--vm-bytes", "150M", "--vm-hang", "1"],
                0.07,
                151.0,
            ),
            ("polinux/stress", vec![], vec!["--cpu", "2"], 2.0, 1.0),
            ("vish/stress", vec![], vec!["-cpus", "2"], 2.0, 1.0),
            (
                "vish/stress",
                vec![],
                vec!["-mem-total", "150Mi", "-mem-alloc-size", "10Mi"],
                0.0,
                151.0,
            ),
            ("x", vec!["stress-ng"], vec!["--vm=2", "--vm-bytes=1G"], 2.0, 2_049.0),
        ] {
            let program = run(image, &command, &args);
            assert_eq!(program.end, None, "{args:?}");
            let window = &program.effort.windows[0];
            assert!((window.cores - cores).abs() < 0.01, "{args:?}: {}", window.cores);
            assert_eq!(window.memory / 1_048_576.0, mebi, "{args:?}");
        }
        let ends = run("polinux/stress", &["stress"], &["--cpu", "1", "--timeout", "60s"]);
        assert_eq!(ends.end.map(|end| end.0.as_secs()), Some(60));
        assert!(run("polinux/stress", &[], &[]).end.is_some(), "it prints its usage");
    }

    #[test]
    fn servers_listen() {
        assert!(run("nginx", &[], &[]).effort.listens);
        assert!(run("registry.k8s.io/hpa-example", &[], &[]).effort.listens);
        assert!(run("x", &["my-server", "--port", "80"], &[]).effort.listens);
        for (image, command) in
            [("registry.k8s.io/pause:3.9", vec![]), ("busybox", vec!["sleep", "9"])]
        {
            assert!(!run(image, &command, &[]).effort.listens, "{image}");
        }
    }
}

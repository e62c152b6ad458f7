//! What a container does, for the load model: from its command, its image, and annotations.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use wharf_load::{Profile, Serve};
use wharf_model::curve::{Curve, CurveError};
use wharf_model::duration::GoDuration;
use wharf_model::quantity::Quantity;
use wharf_model::random::{Random, fnv1a};

use crate::program::{Program, image_name, target_of};

/// Curves of cores used: `load.wharf.dev/cpu`, or `load.wharf.dev/cpu.CONTAINER`.
const CPU: &str = "load.wharf.dev/cpu";
/// Curves of bytes used.
const MEMORY: &str = "load.wharf.dev/memory";
/// Cpu-seconds that a request costs: `70m`.
const CPU_PER_REQUEST: &str = "load.wharf.dev/cpu-per-request";
/// Bytes held by a request while it is answered.
const MEMORY_PER_REQUEST: &str = "load.wharf.dev/memory-per-request";
/// Time that a request waits for something else: `50ms`.
const LATENCY: &str = "load.wharf.dev/latency";
/// Curves of requests made a second, whether or not they are answered.
const REQUESTS: &str = "load.wharf.dev/requests";
/// Whom they are made to.
const TARGET: &str = "load.wharf.dev/target";
/// KWOK's annotations for usage, of each container.
const KWOK_CPU: &str = "kwok.x-k8s.io/usage-cpu";
const KWOK_MEMORY: &str = "kwok.x-k8s.io/usage-memory";

const MEBI: f64 = 1_048_576.0;
/// Modelled: what a server uses while nobody asks it.
const IDLE_CORES: f64 = 0.001;
/// Modelled: what a request costs a server of which nothing is known.
const SERVE_DEFAULT: Serve = Serve { cpu: 0.001, wait: 0.001, memory: 65_536.0 };
/// What is only guessed takes at most this part of a limit: nobody is to be killed by a guess.
const GUESS_OF_LIMIT_MAX: f64 = 0.6;

/// Modelled: a few common images: memory in MiB, and what a request costs in cpu-seconds. That of
/// `hpa-example` sums a million square roots.
const KNOWN: &[(&str, f64, f64)] = &[
    ("hpa-example", 12.0, 0.07),
    ("php-apache", 12.0, 0.07),
    ("nginx", 4.0, 0.000_2),
    ("httpd", 8.0, 0.000_4),
    ("redis", 6.0, 0.000_05),
    ("memcached", 3.0, 0.000_03),
    ("echoserver", 6.0, 0.000_5),
    ("agnhost", 10.0, 0.000_5),
];

/// A pod's annotations.
type Annotations = BTreeMap<String, String>;
/// Gives the text of a key of a ConfigMap in the pod's namespace.
pub(super) type ConfigMaps<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

/// What a container does, and what is wrong with its annotations.
pub(super) fn profile_of(
    pod: &Pod,
    container: &Container,
    program: &Program,
    configmaps: ConfigMaps<'_>,
) -> (Profile, Vec<String>) {
    let none = Annotations::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let mut reader = Reader { annotations, configmaps, problems: Vec::new() };
    let mut profile = by_itself(container, program);
    let own = |key: &str| format!("{key}.{}", container.name);
    for key in [KWOK_CPU.to_owned(), CPU.to_owned(), own(CPU)] {
        if let Some(curve) = reader.curve(&key) {
            profile.cpu = curve;
        }
    }
    for key in [KWOK_MEMORY.to_owned(), MEMORY.to_owned(), own(MEMORY)] {
        if let Some(curve) = reader.curve(&key) {
            profile.memory = curve;
        }
    }
    let costs = [CPU_PER_REQUEST, MEMORY_PER_REQUEST].map(|key| reader.amount(key));
    let wait = reader.wait();
    if costs.iter().any(Option::is_some) || wait.is_some() {
        let serve = profile.serve.get_or_insert(SERVE_DEFAULT);
        serve.cpu = costs[0].unwrap_or(serve.cpu);
        serve.memory = costs[1].unwrap_or(serve.memory);
        serve.wait = wait.unwrap_or(serve.wait);
    }
    // Several containers would each make the requests: it is the first that does.
    let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    if first.is_some_and(|first| first.name == container.name) {
        profile.open = reader.open();
    }
    (profile, reader.problems)
}

/// The ConfigMaps that a pod's annotations name.
pub(super) fn configmaps_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let annotations = pod.metadata.annotations.iter().flatten();
    let ours = annotations.filter(|(key, _)| key.starts_with("load.wharf.dev/"));
    ours.filter_map(|(_, text)| Curve::configmap(text))
}

/// Without annotations.
fn by_itself(container: &Container, program: &Program) -> Profile {
    let image = image_name(container.image.as_deref().unwrap_or_default());
    let effort = &program.effort;
    let known = KNOWN.iter().find(|(name, ..)| *name == image).filter(|_| effort.listens);
    let (mut memory, serve) = match known {
        Some((_, mebi, cpu)) => {
            (mebi * MEBI, Some(Serve { cpu: *cpu, wait: 0.0, memory: SERVE_DEFAULT.memory }))
        }
        None if effort.listens => {
            let drawn = Random::new(2, fnv1a(image.as_bytes())).between(8, 40);
            (drawn as f64 * MEBI, Some(SERVE_DEFAULT))
        }
        None => (MEBI / 2.0, None),
    };
    if let Some(limit) = memory_limit(container) {
        memory = memory.min(limit * GUESS_OF_LIMIT_MAX);
    }
    Profile {
        windows: effort.windows.clone(),
        cycles: effort.cycles.clone(),
        serve,
        ..Profile::idle(if effort.listens { IDLE_CORES } else { 0.0 }, memory)
    }
}

/// A container's memory limit in bytes.
pub(super) fn memory_limit(container: &Container) -> Option<f64> {
    limit(container, "memory")
}

/// A container's cpu limit in cores.
pub(super) fn cpu_limit(container: &Container) -> Option<f64> {
    limit(container, "cpu")
}

fn limit(container: &Container, resource: &str) -> Option<f64> {
    let limit = container.resources.as_ref()?.limits.as_ref()?.get(resource)?;
    Some(Quantity::try_from(limit).ok()?.as_f64()).filter(|limit| *limit > 0.0)
}

/// Reads annotations; what cannot be read is noted and passed over.
struct Reader<'a> {
    annotations: &'a Annotations,
    configmaps: ConfigMaps<'a>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn curve(&mut self, key: &str) -> Option<Curve> {
        let text = self.annotations.get(key)?;
        match Curve::parse(text, self.configmaps) {
            Ok(curve) => Some(curve),
            Err(error) => {
                self.curve_problem(key, &error);
                None
            }
        }
    }

    fn curve_problem(&mut self, key: &str, error: &CurveError) {
        self.problems.push(format!("annotation {key}: {error}"));
    }

    fn amount(&mut self, key: &str) -> Option<f64> {
        let text = self.annotations.get(key)?;
        let amount = Quantity::parse(text).ok().filter(|amount| !amount.is_negative());
        if amount.is_none() {
            let problem = format!("annotation {key}: {text:?} is not a quantity such as 70m");
            self.problems.push(problem);
        }
        amount.map(|amount| amount.as_f64())
    }

    fn wait(&mut self) -> Option<f64> {
        let text = self.annotations.get(LATENCY)?;
        let wait = GoDuration::parse(text).ok().filter(|wait| wait.0 <= Duration::from_secs(30));
        if wait.is_none() {
            let problem = format!(
                "annotation {LATENCY}: {text:?} is not a duration of at most 30s such as 50ms"
            );
            self.problems.push(problem);
        }
        wait.map(|wait| wait.0.as_secs_f64())
    }

    fn open(&mut self) -> Option<(Curve, wharf_load::Target)> {
        let rate = self.curve(REQUESTS)?;
        let target = self.annotations.get(TARGET).and_then(|url| target_of(url));
        if target.is_none() {
            let problem =
                format!("annotation {REQUESTS} needs {TARGET} with a URL such as http://web:8080");
            self.problems.push(problem);
        }
        Some((rate, target?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::program::program_of;

    fn read(annotations: Value, container: Value) -> (Profile, Vec<String>) {
        let mut container = container;
        container["name"] = json!("c");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "annotations": annotations},
            "spec": {"containers": [container]}
        }))
        .expect("a pod");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        profile_of(&pod, container, &program_of(container), &|_, key| {
            (key == "bad").then(|| "0,1\n1,x".to_owned())
        })
    }

    #[test]
    fn annotations_come_before_what_is_known_of_images() {
        let image = json!({"image": "registry.k8s.io/hpa-example"});
        let (profile, problems) = read(json!({}), image.clone());
        assert_eq!(profile.serve.map(|serve| serve.cpu), Some(0.07));
        assert!(problems.is_empty());
        let (profile, problems) = read(
            json!({
                CPU_PER_REQUEST: "10m", LATENCY: "50ms", MEMORY_PER_REQUEST: "1Mi",
                CPU: "250m", "load.wharf.dev/cpu.c": "300m", KWOK_MEMORY: "100Mi",
                REQUESTS: "5", TARGET: "http://other"
            }),
            image,
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(profile.serve, Some(Serve { cpu: 0.01, wait: 0.05, memory: MEBI }));
        assert_eq!(
            (profile.cpu, profile.memory),
            (Curve::Constant(3.0 * 0.1), Curve::Constant(100.0 * MEBI))
        );
        assert!(profile.open.is_some());
    }

    #[test]
    fn a_guess_kills_nobody() {
        let small = json!({"image": "nginx", "resources": {"limits": {"memory": "4Mi"}}});
        let (profile, _) = read(json!({}), small);
        assert!(profile.memory.at(Duration::ZERO) < 4.0 * MEBI);
    }

    #[test]
    fn each_problem_is_a_line() {
        let (_, problems) = read(
            json!({
                CPU: "trace configmap=usage key=bad", MEMORY: "much", CPU_PER_REQUEST: "x",
                LATENCY: "1h", REQUESTS: "1"
            }),
            json!({"image": "nginx"}),
        );
        assert_eq!(
            problems,
            [
                "annotation load.wharf.dev/cpu: row 2 of bad in ConfigMap usage is \"1,x\"; a row is TIME,VALUE such as 90s,250m, and times rise",
                "annotation load.wharf.dev/memory: \"much\" is not a curve; there are a quantity, \"sine\", \"steps\" and \"trace\"",
                "annotation load.wharf.dev/cpu-per-request: \"x\" is not a quantity such as 70m",
                "annotation load.wharf.dev/latency: \"1h\" is not a duration of at most 30s such as 50ms",
                "annotation load.wharf.dev/requests needs load.wharf.dev/target with a URL such as http://web:8080",
            ]
        );
    }
}

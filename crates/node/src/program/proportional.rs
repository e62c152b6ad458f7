//! The Cluster Proportional Autoscaler whose flags are wrong: it says so and ends, and is started
//! again until somebody mends them. What one with the right flags does is its controller's matter.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use wharf_autoscale::cpa::container::{flags_of, is_program};
use wharf_autoscale::cpa::flags::Refusal;

use super::{ERROR_HEAD, Line, Program, STARTUP, line};

/// What the parser of flags ends with, and what the program itself does.
const USAGE: i32 = 2;
const INVALID: i32 = 1;

/// What the process does, if it is this program and ends as soon as it has read its flags.
pub(crate) fn refused(pod: &Pod, container: &Container) -> Option<Program> {
    if !is_program(container) {
        return None;
    }
    let (output, code): (Vec<Line>, i32) = match flags_of(pod, container).err()? {
        Refusal::Usage(text) => (vec![line(Duration::ZERO, &text)], USAGE),
        Refusal::Invalid(texts) => {
            let head = |text: &String| format!("{ERROR_HEAD}options.go:60] {text}");
            (texts.iter().map(|text| line(Duration::ZERO, &head(text))).collect(), INVALID)
        }
    };
    Some(Program { output, end: Some((STARTUP, code)), ..Program::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn end(image: &str, args: &[&str]) -> Option<(i32, Vec<String>)> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "cpa", "namespace": "kube-system"},
            "spec": {"containers": [{"name": "c", "image": image,
                "command": ["/cluster-proportional-autoscaler"], "args": args,
                "env": [{"name": "MY_POD_NAMESPACE",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]}]}
        }))
        .expect("a pod");
        let program = refused(&pod, &pod.spec.as_ref()?.containers[0])?;
        let texts = program.output.into_iter().map(|line| line.text).collect();
        Some((program.end?.1, texts))
    }

    #[test]
    fn wrong_flags_end_it() {
        let image = "registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.9.0";
        let right = ["--target=deployment/web", "--configmap=cpa"];
        assert_eq!(end(image, &right), None);
        assert_eq!(end("nginx", &["--nonsense"]), None);
        assert_eq!(
            end(image, &["--nonsense"]),
            Some((2, vec!["unknown flag: --nonsense".to_owned()]))
        );
        let (code, texts) = end(image, &["--target=statefulset/web"]).expect("it ends");
        assert_eq!((code, texts.len()), (1, 3));
        assert_eq!(
            texts[1],
            format!("{ERROR_HEAD}options.go:60] --configmap parameter cannot be empty")
        );
    }
}

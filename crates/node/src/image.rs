//! Container images as the simulated kubelet sees them: how large, how long to pull.
//!
//! Modelled: a pull takes one to three and a half seconds for the registry's answers plus the
//! image's size at 60 MB/s; sizes of a few common images are known (compressed, linux/amd64), the
//! others are drawn from the name, 20 to 300 MB.

use std::time::Duration;

use wharf_model::random::{Random, fnv1a};

use crate::program::image_name;

const BYTES_PER_SECOND: u64 = 60_000_000;

/// Sizes by name and tag; an empty tag stands for every tag.
const KNOWN: &[(&str, &str, u64)] = &[
    ("pause", "3.7", 2_002_080),
    ("pause", "", 320_000),
    ("busybox", "", 2_160_000),
    ("alpine", "", 3_800_000),
    ("nginx", "", 72_000_000),
    ("hpa-example", "", 170_000_000),
    ("netshoot", "", 200_000_000),
    ("hello-world", "", 10_000),
    ("ubuntu", "", 30_000_000),
    ("debian", "", 48_500_000),
    ("redis", "", 45_000_000),
    ("python", "", 360_000_000),
];

/// The modelled size in bytes.
pub(crate) fn size_bytes(image: &str) -> u64 {
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("", |(_, t)| t);
    let name = image_name(image);
    KNOWN.iter().find(|(known, of, _)| *known == name && (of.is_empty() || *of == tag)).map_or_else(
        || Random::new(0, fnv1a(image.as_bytes())).between(20_000_000, 300_000_000),
        |(_, _, size)| *size,
    )
}

/// How long a pull of an image takes that is not on the node; `draw` is any number that tells
/// this pull from others.
pub(crate) fn pull_time(image: &str, draw: u64) -> Duration {
    let answers = Random::new(draw, fnv1a(image.as_bytes())).between(1_000, 3_500);
    Duration::from_millis(answers + size_bytes(image) * 1_000 / BYTES_PER_SECOND)
}

/// How long it takes to find out that an image on the node is still the registry's.
pub(crate) fn check_time(image: &str, draw: u64) -> Duration {
    Duration::from_millis(Random::new(draw, fnv1a(image.as_bytes())).between(250, 900))
}

/// The image as the container runtime names it: with registry and tag.
pub(crate) fn canonical(image: &str) -> String {
    let (registry, path) = match image.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            (first, path.to_owned())
        }
        Some(_) => ("docker.io", image.to_owned()),
        None => ("docker.io", format!("library/{image}")),
    };
    let tagged =
        path.contains('@') || path.rsplit('/').next().is_some_and(|last| last.contains(':'));
    format!("{registry}/{path}{}", if tagged { "" } else { ":latest" })
}

/// The image's digest reference, as `imageID` shows it.
pub(crate) fn image_id(image: &str) -> String {
    let name = canonical(image);
    if name.contains('@') {
        return name;
    }
    let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
    format!("{repository}@sha256:{}", Random::new(1, fnv1a(name.as_bytes())).hex(64))
}

/// `Always` for `:latest` and for no tag, else `IfNotPresent`: the API server's default.
pub(crate) fn default_pull_policy(image: &str) -> &'static str {
    let name = canonical(image);
    if name.ends_with(":latest") && !name.contains('@') { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        for (image, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            (
                "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
                "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
            ),
        ] {
            assert_eq!(canonical(image), full);
        }
        assert!(image_id("nginx").starts_with("docker.io/library/nginx@sha256:"));
        assert_eq!(default_pull_policy("nginx"), "Always");
        assert_eq!(default_pull_policy("nginx:1.27"), "IfNotPresent");
    }

    #[test]
    fn sizes_and_times_are_plausible() {
        assert_eq!(size_bytes("public.ecr.aws/eks-distro/kubernetes/pause:3.7"), 2_002_080);
        assert_eq!(size_bytes("example.com/x:1"), size_bytes("example.com/x:1"));
        for draw in 0..50 {
            let pause = pull_time("registry.k8s.io/pause:3.7", draw).as_millis();
            assert!((1_000..=3_600).contains(&pause), "{pause}");
        }
    }
}

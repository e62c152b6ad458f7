//! The program as a container of a pod: whether it is one, and what it was told.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::flags::{Flags, Refusal};

/// The images' name, also of those that carry the architecture in it.
const IMAGE: &str = "cluster-proportional-autoscaler";

/// Whether a container is of the program's image.
pub fn is_program(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    let path = image.split('@').next().unwrap_or(image);
    path.rsplit('/').next().is_some_and(|name| name.starts_with(IMAGE))
}

/// What the program in a container is told by its arguments and environment.
///
/// # Errors
/// What it says before it ends.
pub fn flags_of(pod: &Pod, container: &Container) -> Result<Flags, Refusal> {
    let namespace = environment(container, "MY_POD_NAMESPACE", pod);
    Flags::parse(&arguments(container, pod), namespace.as_deref())
}

/// The program's arguments: what follows its name, with variables of the environment filled in.
fn arguments(container: &Container, pod: &Pod) -> Vec<String> {
    let command = container.command.iter().flatten().skip(1);
    command
        .chain(container.args.iter().flatten())
        .map(|word| expand(word, container, pod))
        .collect()
}

/// `$(NAME)` stands for a variable; what is no variable stays as it is.
fn expand(word: &str, container: &Container, pod: &Pod) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("$(") {
        text.push_str(before);
        let variable = after.split_once(')');
        let value = variable.and_then(|(name, _)| environment(container, name, pod));
        match (variable, value) {
            (Some((_, after)), Some(value)) => {
                text.push_str(&value);
                rest = after;
            }
            _ => {
                text.push_str("$(");
                rest = after;
            }
        }
    }
    text + rest
}

/// A variable of the container's environment, as far as it follows from the pod.
fn environment(container: &Container, name: &str, pod: &Pod) -> Option<String> {
    let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
    if let Some(value) = &variable.value {
        return Some(value.clone());
    }
    let field = variable.value_from.as_ref()?.field_ref.as_ref()?;
    match field.field_path.as_str() {
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.name" => pod.metadata.name.clone(),
        _ => None,
    }
}

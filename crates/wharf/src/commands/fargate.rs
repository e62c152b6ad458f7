//! `wharf fargate profile`: profiles of a running lab, through its API.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharf_model::fargate::{FargateProfile, FargateProfileSpec, FargateSelector};
use wharf_sim::config::{generated_role, object_name};

use super::eksctl::{self, or_none, pairs};
use crate::cli::{LabArgs, Output, ProfileCommand, ProfileCreateArgs};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// All profiles; an object's own path goes on after it, within its namespace.
const ALL: &str = "/apis/eks.services.k8s.aws/v1alpha1/fargateprofiles";
/// Where profiles are made.
const HOME: &str = "/apis/eks.services.k8s.aws/v1alpha1/namespaces/kube-system/fargateprofiles";

/// Does what is asked for.
pub(crate) fn run(command: &ProfileCommand) -> Result<(), Failure> {
    match command {
        ProfileCommand::Create(args) => create(args),
        ProfileCommand::List(args) => {
            let profiles = match &args.name {
                Some(name) => vec![find(&args.lab, name)?],
                None => profiles(&args.lab)?,
            };
            match args.output {
                Output::Json => {
                    let all: Vec<Value> = profiles.iter().map(described).collect();
                    output::data(&pretty(&json!(all)));
                }
                Output::Text => output::data(&table(&profiles)),
            }
            Ok(())
        }
        ProfileCommand::Describe(args) => {
            let profile = find(&args.lab, &args.name)?;
            output::data(&pretty(&json!({"fargateProfile": described(&profile)})));
            Ok(())
        }
        ProfileCommand::Delete(args) => {
            let all = profiles(&args.lab)?;
            let profile = find(&args.lab, &args.name)?;
            let going = all.iter().filter(|other| other.spec.name != args.name);
            if let Some(going) = { going }.find(|other| other.is_deleting()) {
                return Err(Failure::bad_input(format!(
                    "Cannot delete Fargate Profile {} because the cluster currently has Fargate profile {} in status DELETING",
                    args.name, going.spec.name
                )));
            }
            let namespace = profile.metadata.namespace.as_deref().unwrap_or_default();
            let name = profile.metadata.name.as_deref().unwrap_or_default();
            let path = format!(
                "/apis/eks.services.k8s.aws/v1alpha1/namespaces/{namespace}/fargateprofiles/{name}"
            );
            client::ask_well(args.lab.kubeconfig.as_deref(), "DELETE", &path, "")?;
            output::progress(&format!("deleting Fargate profile {} and its pods", args.name));
            Ok(())
        }
    }
}

fn create(args: &ProfileCreateArgs) -> Result<(), Failure> {
    let lab = args.lab.kubeconfig.as_deref();
    let cluster = client::ask_well(lab, "GET", "/wharf/v1/cluster", "")?;
    let cluster: Value = serde_json::from_str(&cluster).map_err(Failure::failed)?;
    let cluster = cluster["name"].as_str().unwrap_or_default();
    let mut profile = FargateProfile {
        spec: FargateProfileSpec {
            cluster_name: Some(cluster.to_owned()),
            name: args.name.clone(),
            pod_execution_role_arn: Some(
                args.pod_execution_role_arn.clone().unwrap_or_else(|| generated_role(cluster)),
            ),
            selectors: vec![FargateSelector {
                namespace: args.namespace.clone(),
                labels: map(&args.labels),
            }],
            subnets: args.subnets.clone(),
            tags: map(&args.tags),
            client_request_token: None,
        },
        ..FargateProfile::default()
    };
    profile.metadata.name = Some(object_name(&args.name));
    let body = serde_json::to_string(&profile).map_err(Failure::failed)?;
    client::ask_well(lab, "POST", HOME, &body)?;
    output::progress(&format!(
        "creating Fargate profile {}; pods get it once it is ACTIVE, which takes 2 to 6 minutes of the lab's time",
        args.name
    ));
    Ok(())
}

fn map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// The lab's profiles, in the order of their names.
fn profiles(lab: &LabArgs) -> Result<Vec<FargateProfile>, Failure> {
    let answer = client::ask_well(lab.kubeconfig.as_deref(), "GET", ALL, "")?;
    let mut list: Value = serde_json::from_str(&answer).map_err(Failure::failed)?;
    let mut profiles: Vec<FargateProfile> =
        serde_json::from_value(list["items"].take()).map_err(Failure::failed)?;
    profiles.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
    Ok(profiles)
}

fn find(lab: &LabArgs, name: &str) -> Result<FargateProfile, Failure> {
    let all = profiles(lab)?;
    let names: Vec<String> = all.iter().map(|profile| profile.spec.name.clone()).collect();
    all.into_iter().find(|profile| profile.spec.name == name).ok_or_else(|| {
        let there = match names.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Failure::bad_input(format!("No Fargate Profile found with name: {name}; {there}"))
    })
}

/// A profile as EKS' API tells it.
fn described(profile: &FargateProfile) -> Value {
    let FargateProfile { spec, status, .. } = profile;
    let known_as = status.ack_resource_metadata.as_ref();
    json!({
        "fargateProfileName": spec.name,
        "fargateProfileArn": known_as.and_then(|known_as| known_as.arn.clone()),
        "clusterName": spec.cluster_name,
        "createdAt": status.created_at,
        "podExecutionRoleArn": spec.pod_execution_role_arn,
        "subnets": spec.subnets,
        "selectors": spec.selectors,
        "status": status_of(profile),
        "tags": spec.tags,
    })
}

/// A new profile says nothing for a moment.
fn status_of(profile: &FargateProfile) -> &str {
    if profile.is_deleting() {
        return wharf_model::fargate::status::DELETING;
    }
    profile.status.status.as_deref().unwrap_or(wharf_model::fargate::status::CREATING)
}

/// eksctl's table: a line for each selector.
fn table(profiles: &[FargateProfile]) -> String {
    let header = [
        "NAME",
        "SELECTOR_NAMESPACE",
        "SELECTOR_LABELS",
        "POD_EXECUTION_ROLE_ARN",
        "SUBNETS",
        "TAGS",
        "STATUS",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for profile in profiles {
        for selector in &profile.spec.selectors {
            rows.push([
                profile.spec.name.clone(),
                selector.namespace.clone(),
                pairs(&selector.labels),
                or_none(profile.spec.pod_execution_role_arn.clone().unwrap_or_default()),
                or_none(profile.spec.subnets.join(",")),
                pairs(&profile.spec.tags),
                status_of(profile).to_owned(),
            ]);
        }
    }
    eksctl::table(&rows)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_eksctls() {
        let profile: FargateProfile = serde_json::from_value(json!({
            "spec": {
                "name": "study_wildcard",
                "podExecutionRoleARN": "arn:aws:iam::1:role/r",
                "selectors": [{"namespace": "study-*"}, {"namespace": "shop", "labels": {"a": "b", "c": "d"}}],
                "subnets": ["subnet-1", "subnet-2"],
                "tags": {"Blueprint": "x", "Team": "y"},
            },
            "status": {"status": "ACTIVE"},
        }))
        .expect("a profile");
        let text = table(&[profile]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('\t').map(str::trim_end).collect()).collect();
        assert_eq!(
            rows,
            [
                [
                    "NAME",
                    "SELECTOR_NAMESPACE",
                    "SELECTOR_LABELS",
                    "POD_EXECUTION_ROLE_ARN",
                    "SUBNETS",
                    "TAGS",
                    "STATUS"
                ],
                [
                    "study_wildcard",
                    "study-*",
                    "<none>",
                    "arn:aws:iam::1:role/r",
                    "subnet-1,subnet-2",
                    "Blueprint=x,Team=y",
                    "ACTIVE"
                ],
                [
                    "study_wildcard",
                    "shop",
                    "a=b,c=d",
                    "arn:aws:iam::1:role/r",
                    "subnet-1,subnet-2",
                    "Blueprint=x,Team=y",
                    "ACTIVE"
                ],
            ]
        );
    }
}

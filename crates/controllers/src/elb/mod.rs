//! The AWS Load Balancer Controller, and what Elastic Load Balancing does on its behalf: an Application
//! Load Balancer for each Ingress or group of them, a Network Load Balancer for each Service that wants
//! one, target groups, and the pods in them.
//!
//! `ingress_model` and `service_model` turn what users wrote into a [`stack::Stack`], or into the words
//! why not; `stack` says what to write so that the world has it. Both are plain functions. `ingress` and
//! `service` are the controllers over them, `targets` keeps the target groups, and `cloud` is the
//! simulated cloud's part: a load balancer takes minutes to become active.
//!
//! Public contract: <https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/>.

mod annotations;
mod cloud;
mod ingress;
mod ingress_model;
mod names;
mod service;
mod service_model;
mod stack;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use wharf_model::money::Price;
use wharf_ports::controller::Controller;

pub use ingress_model::{AUTO_MODE_CONTROLLER, CONTROLLER};
pub use targets::health_condition;

/// The class of Services that the controller takes.
pub const NLB_CLASS: &str = "service.k8s.aws/nlb";
/// The class of Services that EKS Auto Mode takes.
pub const AUTO_MODE_NLB_CLASS: &str = "eks.amazonaws.com/nlb";

/// What the controllers have to know of their cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElbSettings {
    /// The cluster's name.
    pub cluster_name: String,
    /// The region.
    pub region: String,
    /// The account.
    pub account: String,
    /// The VPC.
    pub vpc_id: String,
    /// What a load balancer costs an hour, whatever goes through it.
    pub price: Price,
}

/// us-east-1 and ap-northeast-2, for application and network load balancers alike.
const PRICE: Price = Price::from_nano_dollars_per_hour(22_500_000);

impl ElbSettings {
    /// Those of a cluster in a region, whose prices are to those of us-east-1 as `factor` says.
    pub fn new(cluster_name: &str, region: &str, factor: (u32, u32)) -> Self {
        let price = match region {
            "us-east-1" | "ap-northeast-2" => PRICE,
            _ => PRICE.scale(factor.0, factor.1),
        };
        Self {
            cluster_name: cluster_name.to_owned(),
            region: region.to_owned(),
            account: crate::fargate::ACCOUNT.to_owned(),
            vpc_id: format!("vpc-{}", names::digest(&[cluster_name, "vpc"], 17)),
            price,
        }
    }
}

/// The controllers.
pub fn controllers(settings: ElbSettings) -> Vec<Box<dyn Controller>> {
    let settings = Arc::new(settings);
    vec![
        Box::new(ingress::Ingresses::new(Arc::clone(&settings))),
        Box::new(service::Services::new(settings)),
        Box::new(targets::Bindings::default()),
        Box::new(cloud::Balancers),
    ]
}

//! No cloud: for a program that only schedules, or a cluster whose machines somebody else buys.

use wharf_model::time::Time;
use wharf_ports::cloud::{Cloud, CloudEvent, CloudOutput, CloudRequest, LaunchError};
use wharf_ports::view::View;

/// A cloud that has nothing to sell: every launch is refused, and machines are not there.
#[derive(Debug, Default)]
pub struct NoCloud {
    answers: Vec<CloudEvent>,
}

impl Cloud for NoCloud {
    fn submit(&mut self, request: CloudRequest, _now: Time) {
        self.answers.push(match request {
            CloudRequest::Launch(request) => CloudEvent::LaunchFailed {
                token: request.token,
                node_claim: request.node_claim,
                error: no_cloud(),
            },
            CloudRequest::LaunchMicroVm(request) => {
                CloudEvent::MicroVmFailed { pod: request.pod, error: no_cloud() }
            }
            CloudRequest::Terminate { instance_id } => CloudEvent::Terminated { instance_id },
        });
    }

    fn poll(&mut self, _now: Time, _view: &View, output: &mut CloudOutput) {
        output.events.append(&mut self.answers);
    }

    fn next_wake(&self) -> Option<Time> {
        (!self.answers.is_empty()).then_some(Time::EPOCH)
    }
}

fn no_cloud() -> LaunchError {
    LaunchError::Api {
        code: "NoCloud".to_owned(),
        message: "this program runs without a cloud".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_answered_once() {
        let mut cloud = NoCloud::default();
        assert_eq!(cloud.next_wake(), None);
        cloud.submit(CloudRequest::Terminate { instance_id: "i-1".to_owned() }, Time::EPOCH);
        assert_eq!(cloud.next_wake(), Some(Time::EPOCH));
        let mut output = CloudOutput::default();
        cloud.poll(Time::EPOCH, &View::new(), &mut output);
        assert_eq!(output.events, [CloudEvent::Terminated { instance_id: "i-1".to_owned() }]);
        assert_eq!(cloud.next_wake(), None);
    }
}

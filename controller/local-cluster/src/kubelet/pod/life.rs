//! A Pod while it lives: what its containers have come to, told to the API whenever it changes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tokio::sync::watch;

use crate::kubelet::Node;
use crate::kubelet::identity::Identity;
use crate::kubelet::run::{Exit, Runs};
use crate::kubelet::status::{End, Snapshot, State, View, containers, status};

/// How long after a failed write of a status the next one comes.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Which container of the Pod.
#[derive(Debug, Clone, Copy)]
pub(in crate::kubelet) enum Place {
    Init(usize),
    Main(usize),
}

/// A Pod while its containers run.
pub(in crate::kubelet) struct Life {
    pub(in crate::kubelet) node: Arc<Node>,
    pub(in crate::kubelet) pod: Arc<Pod>,
    pub(super) start: Timestamp,
    pub(super) views: watch::Sender<Snapshot>,
}

impl Life {
    pub(super) fn new(node: Arc<Node>, pod: Arc<Pod>) -> Self {
        let status = pod.status.as_ref();
        let start = status.and_then(|status| status.start_time.as_ref());
        Self {
            start: start.map_or_else(Timestamp::now, |time| time.0),
            views: watch::Sender::new(Snapshot::new(&pod)),
            node,
            pod,
        }
    }

    pub(in crate::kubelet) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(in crate::kubelet) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// As the kubelet of Kubernetes names a Pod in its messages.
    pub(in crate::kubelet) fn full_name(&self) -> String {
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        format!("{name}_{}({})", self.namespace(), self.uid())
    }

    pub(in crate::kubelet) fn container(&self, place: Place) -> Option<&Container> {
        let (init, main) = containers(&self.pod);
        match place {
            Place::Init(index) => init.get(index),
            Place::Main(index) => main.get(index),
        }
    }

    /// The processes that have the runs of its containers.
    pub(super) fn supervisors(&self) -> Vec<i32> {
        let (init, main) = containers(&self.pod);
        let known = init.iter().chain(main).filter_map(|container| {
            let runs = Runs::of(&self.node.config.root, self.uid(), &container.name);
            let run = runs.get(runs.newest()?);
            run.exit().is_none().then(|| run.supervisor())?
        });
        known
            .filter(Identity::alive)
            .map(|known| known.pid)
            .collect()
    }

    /// Whether a container ran when the machine went down.
    pub(super) fn was_cut_off(&self) -> bool {
        let (init, main) = containers(&self.pod);
        init.iter().chain(main).any(|container| {
            let runs = Runs::of(&self.node.config.root, self.uid(), &container.name);
            let run = runs.newest().map(|newest| runs.get(newest));
            run.is_some_and(|run| {
                run.exit().is_none()
                    && run
                        .supervisor()
                        .is_some_and(|known| known.is_of_earlier_boot())
            })
        })
    }

    pub(in crate::kubelet) fn show(
        &self,
        place: Place,
        state: State,
        last: Option<Exit>,
        restarts: u32,
    ) {
        let view = View {
            state,
            last,
            restarts,
        };
        self.views.send_if_modified(|all| {
            let slot = match place {
                Place::Init(index) => all.init.get_mut(index),
                Place::Main(index) => all.main.get_mut(index),
            };
            slot.is_some_and(|slot| std::mem::replace(slot, view.clone()) != view)
        });
    }

    /// Tells whoever is responsible for the Pod of what went wrong beside its containers.
    pub(in crate::kubelet) fn warn(&self, reason: &str, message: &str) {
        self.node.api.warn(&self.pod, reason, message);
    }

    pub(super) fn finish(&self, end: End) {
        self.views.send_modify(|all| all.end = Some(end));
    }

    /// Ends a Pod that cannot run here before it has begun.
    pub(super) fn refuse(&self, message: &str) {
        self.warn("Failed", &format!("Error: {message}"));
        self.views.send_modify(|all| {
            for view in all.init.iter_mut().chain(&mut all.main) {
                let exit = Exit::without_program(128, "StartError", message.to_owned());
                view.state = State::Ended(exit);
            }
            all.end = Some(End {
                reason: Some("StartError"),
                message: Some(message.to_owned()),
                disruption: None,
            });
        });
    }

    /// Writes the Pod's status whenever it changes, and ends with the last one.
    pub(super) async fn report(
        &self,
        mut views: watch::Receiver<Snapshot>,
        pods: &watch::Receiver<Option<Arc<Pod>>>,
    ) {
        let mut written = self.pod.status.clone().unwrap_or_default();
        while views.changed().await.is_ok() {
            loop {
                let snapshot = views.borrow_and_update().clone();
                let status = {
                    let newest = pods.borrow();
                    let pod = newest.as_ref().unwrap_or(&self.pod);
                    status(pod, &snapshot, self.start, &written, Timestamp::now())
                };
                if status == written || self.write(&status).await {
                    written = status;
                    if snapshot.end.is_some() {
                        return;
                    }
                    break;
                }
                tokio::time::sleep(WRITE_RETRY).await;
            }
        }
    }

    /// Whether the status is written, or there is no object left to write it to.
    async fn write(&self, status: &PodStatus) -> bool {
        match self.node.api.patch_status(&self.pod, status.clone()).await {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(%error, pod.name = self.pod.metadata.name, "the Pod's status was not written");
                false
            }
        }
    }
}

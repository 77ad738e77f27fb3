//! The resources that are served.

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Resource {
    Namespaces,
    Nodes,
    Pods,
    Jobs,
    Events,
    ConfigMaps,
    Secrets,
    Services,
    ServiceAccounts,
    Leases,
}

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespace,
}

/// How a resource is named.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) scope: Scope,
}

const fn names(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    scope: Scope,
) -> Names {
    Names {
        group,
        plural,
        kind,
        scope,
    }
}

impl Resource {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Namespaces,
        Self::Nodes,
        Self::Pods,
        Self::Jobs,
        Self::Events,
        Self::ConfigMaps,
        Self::Secrets,
        Self::Services,
        Self::ServiceAccounts,
        Self::Leases,
    ];

    pub(crate) const fn names(self) -> Names {
        match self {
            Self::Namespaces => names("", "namespaces", "Namespace", Scope::Cluster),
            Self::Nodes => names("", "nodes", "Node", Scope::Cluster),
            Self::Pods => names("", "pods", "Pod", Scope::Namespace),
            Self::Jobs => names("batch", "jobs", "Job", Scope::Namespace),
            Self::Events => names("", "events", "Event", Scope::Namespace),
            Self::ConfigMaps => names("", "configmaps", "ConfigMap", Scope::Namespace),
            Self::Secrets => names("", "secrets", "Secret", Scope::Namespace),
            Self::Services => names("", "services", "Service", Scope::Namespace),
            Self::ServiceAccounts => {
                names("", "serviceaccounts", "ServiceAccount", Scope::Namespace)
            }
            Self::Leases => names("coordination.k8s.io", "leases", "Lease", Scope::Namespace),
        }
    }

    pub(crate) const fn plural(self) -> &'static str {
        self.names().plural
    }

    pub(crate) const fn kind(self) -> &'static str {
        self.names().kind
    }

    pub(crate) const fn group(self) -> &'static str {
        self.names().group
    }

    pub(crate) fn is_namespaced(self) -> bool {
        self.names().scope == Scope::Namespace
    }

    /// `v1`, or with the group before it.
    pub(crate) fn api_version(self) -> String {
        match self.group() {
            "" => "v1".into(),
            group => format!("{group}/v1"),
        }
    }

    /// The name that error messages use: `jobs.batch`.
    pub(crate) fn qualified(self) -> String {
        match self.group() {
            "" => self.plural().into(),
            group => format!("{}.{group}", self.plural()),
        }
    }

    /// Finds a resource; every one has the version `v1`.
    pub(crate) fn find(group: &str, plural: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|resource| resource.group() == group && resource.plural() == plural)
    }

    /// What the command line may call it.
    pub(crate) fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Namespaces => &["ns"],
            Self::Nodes => &["no"],
            Self::Pods => &["po"],
            Self::Events => &["ev"],
            Self::ConfigMaps => &["cm"],
            Self::Services => &["svc"],
            Self::ServiceAccounts => &["sa"],
            Self::Jobs | Self::Secrets | Self::Leases => &[],
        }
    }

    /// Whether `kubectl get all` shows it.
    pub(crate) fn is_in_all(self) -> bool {
        matches!(self, Self::Pods | Self::Jobs | Self::Services)
    }

    /// Whether `status` is written apart from the rest.
    pub(crate) fn has_status(self) -> bool {
        matches!(
            self,
            Self::Namespaces | Self::Nodes | Self::Pods | Self::Jobs | Self::Services
        )
    }

    /// Fields, besides name and namespace, that field selectors may name.
    pub(crate) fn selectable_fields(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            Self::Jobs => &["status.successful"],
            Self::Events => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            Self::Namespaces => &["status.phase"],
            Self::Nodes => &["spec.unschedulable"],
            Self::Secrets => &["type"],
            Self::ConfigMaps | Self::Services | Self::ServiceAccounts | Self::Leases => &[],
        }
    }
}
